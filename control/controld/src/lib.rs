//! The control, bmc and importer roles.
