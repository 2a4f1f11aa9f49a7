//! BMC drivers behind one trait.
