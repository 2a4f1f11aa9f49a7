//! The rack role: shards, wiring, limits, metrics.
