//! Ring behind one completion interface: sockets, files, buffers, timers.
