//! The gateway role: agents' TLS, link to control.
