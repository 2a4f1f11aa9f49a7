//! Fuzz targets as plain functions; the libFuzzer harness wraps them.
