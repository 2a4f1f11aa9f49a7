//! The decisions of a rack: joins the protocols, the snapshot and the content index; no I/O.
