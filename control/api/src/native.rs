//! People and programs ⇄ control.
