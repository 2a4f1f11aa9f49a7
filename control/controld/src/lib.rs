//! The control, bmc and importer roles.

pub mod bootenv;
pub mod importer;
