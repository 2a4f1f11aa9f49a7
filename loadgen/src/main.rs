//! Plays thousands of whole machines against a boot server.

fn main() {}
