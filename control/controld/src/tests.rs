//! The control role as a whole: a scripted rack on the unix socket, a scripted bmc role, and a client of the API.

mod apply;
mod bad_input;
mod dns;
mod faults;
mod harness;
mod images;
mod openapi;
mod workflow;
