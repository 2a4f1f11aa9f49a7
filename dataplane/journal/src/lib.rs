//! Durable log of a rack: records, group commit, recovery.
