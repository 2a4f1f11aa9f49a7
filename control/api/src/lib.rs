//! Request and response types; messages between roles, racks and agents; no server.
