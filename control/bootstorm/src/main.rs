//! Bootstorm: roles, supervisor, command line.

fn main() {}
