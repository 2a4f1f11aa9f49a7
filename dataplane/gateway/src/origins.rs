//! Content from elsewhere than control: directories, web servers (another rack is one) and buckets.
//!
//! A wish goes to the first origin that is not resting. What comes is checked against its name *here*, so that an origin which
//! stalls, breaks off, lies or has nothing is left for the next one within the same wish; the rack checks once more. An origin that
//! fails rests, longer each time; one that lied rests longest at once. One that merely lacks something does not rest.
//!
//! A transfer that breaks off is resumed at the same origin by a range. Nothing is resumed at another: if the two together
//! were wrong, nobody could say which one lied.
//!
//! Origins are named by the administrator, so their addresses are not checked against networks (threat model, T11: exact
//! origins); redirects are not followed, there is no proxy, and credentials go to their bucket's origin only.

mod directory;
mod health;
mod s3;
mod web;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use bootstorm_api::local::Wish;
use bootstorm_api::origin::{FILES_NAME, Origin};
use bootstorm_snapshot::{ChunkName, ManifestDigest};

use crate::limits;
use health::Health;
pub use s3::{Credentials, ENVIRONMENT};
use web::Web;

/// Why an origin did not give something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It has nothing by that name; no fault of its.
    #[error("it is not there")]
    Absent,
    /// What came is not what the name says.
    #[error("what came does not match its name")]
    Lied,
    /// It came too slowly.
    #[error("nothing came in time")]
    Stalled,
    /// It is longer than anything of its kind.
    #[error("it is longer than {0} octets")]
    TooLong(usize),
    /// No connection, a break that could not be mended, an answer that means neither yes nor no.
    #[error("{0}")]
    Broken(String),
}

/// Something to fetch: its name below an origin's root, its bounds, and how it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Item {
    Wish(Wish),
    /// The list of files, which has no hash to check.
    Files,
}

impl Item {
    fn name(self) -> String {
        match self {
            Item::Wish(Wish::Chunk { name }) => format!("chunk/{name}"),
            Item::Wish(Wish::Manifest { digest }) => format!("manifest/{digest}"),
            Item::Files => FILES_NAME.to_owned(),
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Item::Wish(Wish::Chunk { .. }) => limits::CHUNK_BYTES_MAX,
            Item::Wish(Wish::Manifest { .. }) => limits::MANIFEST_BYTES_MAX,
            Item::Files => limits::FILES_BYTES_MAX,
        }
    }

    /// How long one origin may take for it in all.
    fn time_max(self) -> Duration {
        match self {
            Item::Wish(Wish::Chunk { .. }) => limits::CHUNK_TIME_MAX,
            Item::Wish(Wish::Manifest { .. }) | Item::Files => limits::MANIFEST_TIME_MAX,
        }
    }

    fn is(self, bytes: &[u8]) -> bool {
        match self {
            Item::Wish(Wish::Chunk { name }) => ChunkName::of(bytes) == name,
            Item::Wish(Wish::Manifest { digest }) => ManifestDigest::of(bytes) == digest,
            Item::Files => true,
        }
    }
}

enum Place {
    Directory(std::path::PathBuf),
    Web(Web),
}

struct Known {
    origin: Origin,
    place: Place,
    health: Mutex<Health>,
}

/// The origins of a rack, in the order of preference.
pub struct Origins {
    known: Vec<Known>,
}

impl Origins {
    /// Prepares the way to each; speaks to none yet. Credentials are for buckets.
    ///
    /// # Errors
    /// [`crate::Error::Origin`] if there is no TLS or a URL cannot be used.
    pub fn new(origins: Vec<Origin>, credentials: Option<&Credentials>) -> Result<Origins, crate::Error> {
        let known = origins.into_iter().map(|origin| {
            let place = match &origin {
                Origin::Directory { path } => Place::Directory(path.clone()),
                Origin::Http { base } => Place::Web(Web::new(base, None)?),
                Origin::S3 { bucket, prefix, endpoint, region } => {
                    let signer = credentials.map(|credentials| s3::Signer::new(credentials, region));
                    Place::Web(Web::new(&s3::base(bucket, prefix, endpoint.as_deref(), region), signer)?)
                }
            };
            Ok(Known { origin, place, health: Mutex::default() })
        });
        known.collect::<Result<_, String>>().map(|known| Origins { known }).map_err(crate::Error::Origin)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Fetches what a rack wishes for, from the first origin that gives it; checked. The error says in one line what each origin did.
    pub async fn fetch(&self, wish: Wish) -> Result<Vec<u8>, String> {
        self.fetch_item(Item::Wish(wish)).await
    }

    /// The list of files, from the first origin that has one: JSON lines of `bootstorm_snapshot::record::File`.
    ///
    /// # Errors
    /// What each origin did, in one line.
    pub async fn files(&self) -> Result<Vec<u8>, String> {
        self.fetch_item(Item::Files).await
    }

    async fn fetch_item(&self, item: Item) -> Result<Vec<u8>, String> {
        let mut told = Vec::new();
        for known in &self.known {
            if let Some(rest) = known.rests(Instant::now()) {
                told.push(format!("{} rests for {} ms", known.origin, rest.as_millis()));
                continue;
            }
            match known.fetch(item).await {
                Ok(bytes) => {
                    known.health().succeeded();
                    return Ok(bytes);
                }
                Err(failed) => {
                    if let Some(rest) = known.health().failed(&failed, Instant::now()) {
                        let (origin, rest_ms) = (&known.origin, rest.as_millis());
                        tracing::warn!(%origin, what = %item.name(), error = %failed, rest_ms, "an origin fails and is left alone");
                    }
                    told.push(format!("{}: {failed}", known.origin));
                }
            }
        }
        Err(if told.is_empty() { "there is no origin".to_owned() } else { told.join("; ") })
    }
}

impl Known {
    fn health(&self) -> std::sync::MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn rests(&self, now: Instant) -> Option<Duration> {
        self.health().rests(now)
    }

    async fn fetch(&self, item: Item) -> Result<Vec<u8>, Failed> {
        let work = async {
            match &self.place {
                Place::Directory(path) => directory::fetch(path.clone(), item).await,
                Place::Web(web) => web.fetch(&item.name(), item.bytes_max()).await,
            }
        };
        let bytes = tokio::time::timeout(item.time_max(), work).await.unwrap_or(Err(Failed::Stalled))?;
        if item.is(&bytes) { Ok(bytes) } else { Err(Failed::Lied) }
    }
}
