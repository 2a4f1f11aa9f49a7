//! Store trait in the words of the model; SQLite behind it.
