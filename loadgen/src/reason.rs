//! Why a node did not get to its end. Each has a stable name, counted in the report; the peer's bytes are never part of it.

use bootstorm_proto::dhcp::client::Failure;
use bootstorm_proto::http::client::BadResponse;
use bootstorm_proto::tftp::client::Outcome;

/// Why a node failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// DHCP ended without a lease.
    #[error("dhcp {0:?}")]
    Dhcp(Failure),
    /// The lease came without a boot file, or without the server that has it.
    #[error("offer without boot file")]
    NoBootFile,
    /// The leased address could not be made ours.
    #[error("address not usable")]
    Address,
    /// A file did not come by TFTP.
    #[error("tftp {0:?}")]
    Tftp(Outcome),
    /// A URL that we cannot follow.
    #[error("url not understood")]
    Url,
    /// A script that we cannot follow; the text says where.
    #[error("{0}")]
    Script(String),
    /// The script started the local disk.
    #[error("script boots from disk")]
    LocalDisk,
    /// Another status than success.
    #[error("http {0}")]
    Status(u16),
    /// The server said "later" too often.
    #[error("http too busy")]
    Busy,
    /// A response that is no HTTP, or ended early.
    #[error("http {0}")]
    Http(BadResponse),
    /// A body longer than it may be.
    #[error("body too long")]
    TooLong,
    /// No connection, after all tries.
    #[error("connection {0}")]
    Connection(std::io::ErrorKind),
    /// The server closed before its answer was complete.
    #[error("connection closed early")]
    Closed,
    /// Nothing came for a long time.
    #[error("server silent")]
    Silent,
    /// TLS failed; the text is rustls' own.
    #[error("tls {0}")]
    Tls(String),
    /// The kernel's command line has no claim or no rack.
    #[error("no claim on the command line")]
    NoClaim,
    /// No initial RAM disk brought the site's CA.
    #[error("no site CA")]
    NoCa,
    /// An answer of the agent's API that does not parse.
    #[error("answer not understood")]
    Answer,
    /// A manifest or chunk that is not what its name says.
    #[error("content does not match its name")]
    Content,
    /// The raw bytes of an image are not those that its hash names.
    #[error("image does not match its BLAKE3")]
    Digest,
    /// The bytes of an image are no such stream.
    #[error("image does not decode")]
    Decode,
    /// An answer to a range request that is another range, or does not say how much there is.
    #[error("not the range asked for")]
    Range,
    /// Verified bytes could not be kept.
    #[error("sink: {0}")]
    Sink(std::io::ErrorKind),
    /// The whole boot took too long.
    #[error("deadline")]
    Deadline,
    /// This program ran out of something (descriptors, queue).
    #[error("load generator at its limit: {0}")]
    Limit(&'static str),
}

impl From<BadResponse> for Reason {
    fn from(bad: BadResponse) -> Reason {
        Reason::Http(bad)
    }
}
