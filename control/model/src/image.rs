//! Images and boot environments.

use crate::{Name, Timestamp};
use bootstorm_snapshot::record::Environment;
use bootstorm_snapshot::{Architecture, Encoding, ImageId, ManifestDigest};
use serde::{Deserialize, Serialize};

/// A disk image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Its name; unique. What people deploy.
    pub name: Name,
    /// BLAKE3 of its raw bytes.
    pub id: ImageId,
    /// Its manifest.
    pub manifest: ManifestDigest,
    /// Length of its raw bytes.
    pub raw_bytes: u64,
    /// Length of its stored stream.
    pub stored_bytes: u64,
    /// Encoding of its chunks.
    pub encoding: Encoding,
    /// What it runs on; `None` where it was not said.
    pub architecture: Option<Architecture>,
    /// Whether it can be deployed.
    pub state: ImageState,
    /// When it was imported.
    pub created: Timestamp,
}

/// Whether an image can be deployed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// All of it is in the content store.
    Ready,
    /// Nothing new is deployed from it; what runs is not touched.
    Retired,
}

impl ImageState {
    /// Its word in API and database.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Retired => "retired",
        }
    }
}

/// A boot environment in force for its architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEnvironment {
    /// What racks serve.
    pub environment: Environment,
    /// When it was imported.
    pub created: Timestamp,
}
