//! Vectors, simulation, conformance, end to end.
//!
//! The library half is the laboratory that the end-to-end tests and the demo share: see [`lab`].

pub mod lab;
