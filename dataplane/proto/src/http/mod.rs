//! HTTP/1.1 heads (RFC 9110, RFC 9112): requests and responses of the server half, responses of the client half.
//!
//! Framing has one reading or is refused: a strict scan of the octets ([`scan`]) comes before `httparse`, which is more
//! lenient (it takes a bare LF, for example). Bodies of requests do not exist here; bodies of responses have a length.

pub mod client;
pub mod scan;
pub mod server;
