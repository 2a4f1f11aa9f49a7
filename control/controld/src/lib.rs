//! The control, bmc and importer roles.

pub mod importer;
