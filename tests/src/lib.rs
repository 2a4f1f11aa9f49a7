//! Vectors, simulation, conformance, end to end.
