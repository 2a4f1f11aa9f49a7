//! Content-addressed store: chunks, packs, index.
