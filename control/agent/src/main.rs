//! The program that runs on a machine.

fn main() {}
