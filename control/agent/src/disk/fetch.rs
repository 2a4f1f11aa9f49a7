//! Content from the rack's plain HTTP: nothing of it is trusted before it is hashed.

use std::net::SocketAddr;
use std::sync::Arc;

use bootstorm_api::agent::{CHUNK_PATH, MANIFEST_PATH, STREAM_PATH};
use bootstorm_snapshot::{Manifest, ManifestDigest};
use reqwest::{StatusCode, header};

use super::layout::{Layout, Placed};
use super::write::{Job, Outcome, Target, WriteError, Writers};
use crate::session::reasons;
use crate::{limits, retry};

/// Why content cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The rack does not deliver, in spite of all retries.
    #[error("the rack does not deliver {what}: {why}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// The last reason.
        why: String,
    },
    /// What it delivers is not what was asked for.
    #[error("{0} is not what its name says")]
    Damaged(String),
    /// The writers have stopped.
    #[error("the writers have stopped")]
    WritersStopped,
}

/// The rack's HTTP.
#[derive(Clone)]
pub struct Source {
    /// Client to use.
    pub client: reqwest::Client,
    /// Where it is.
    pub http: SocketAddr,
}

impl Source {
    /// Fetches a manifest and checks it against its digest.
    pub async fn manifest(&self, digest: ManifestDigest) -> Result<Manifest, FetchError> {
        let what = format!("manifest {digest}");
        let url = format!("http://{}{MANIFEST_PATH}{digest}", self.http);
        let bytes = self.whole(&what, &url, limits::MANIFEST_BYTES_MAX).await?;
        if ManifestDigest::of(&bytes) != digest {
            return Err(FetchError::Damaged(what));
        }
        Manifest::decode(&bytes).map_err(|why| FetchError::Damaged(format!("{what} ({why})")))
    }

    /// Streams all chunks of a layout to the writers in long ranges; after a break it goes on at the last whole chunk.
    pub async fn stream(
        &self,
        digest: ManifestDigest,
        layout: &Layout,
        writers: &mut Writers,
    ) -> Result<(), FetchError> {
        let url = format!("http://{}{STREAM_PATH}{digest}", self.http);
        let mut backoff = retry::Backoff::default();
        let mut next = 0;
        while let Some(rest) = layout.chunks.get(next..).filter(|rest| !rest.is_empty()) {
            let range = range(rest);
            let before = next;
            let result = self.range(&url, range, rest, writers, &mut next).await;
            if next > before {
                backoff.reset();
            }
            match result {
                Ok(()) => {}
                Err(RangeError::WritersStopped) => return Err(FetchError::WritersStopped),
                Err(RangeError::Broken(why)) => {
                    crate::log!("stream: {why}; {next} of {} chunks are here", layout.chunks.len());
                    self.pause(&mut backoff, "the image", why).await?;
                }
            }
        }
        Ok(())
    }

    /// Fetches one chunk by its name, for repair.
    pub async fn chunk(&self, chunk: &Placed) -> Result<Vec<u8>, FetchError> {
        let what = format!("chunk {}", chunk.entry.name);
        let url = format!("http://{}{CHUNK_PATH}{}", self.http, chunk.entry.name);
        self.whole(&what, &url, usize::try_from(chunk.entry.stored_bytes).unwrap_or(0)).await
    }

    async fn range(
        &self,
        url: &str,
        (first, last): (u64, u64),
        chunks: &[Placed],
        writers: &mut Writers,
        next: &mut usize,
    ) -> Result<(), RangeError> {
        let broken = |e: reqwest::Error| RangeError::Broken(reasons(&e));
        let request = self.client.get(url).header(header::RANGE, format!("bytes={first}-{last}"));
        let mut response = request.send().await.map_err(broken)?;
        let expected = format!("bytes {first}-{last}/");
        let given = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if response.status() != StatusCode::PARTIAL_CONTENT || !given.starts_with(&expected) {
            return Err(RangeError::Broken(format!("asked for bytes {first}-{last}, got {}", response.status())));
        }
        let mut cutter = Cutter::default();
        let mut wanted = chunks.iter().take_while(|c| c.stored_offset <= last);
        let mut current = wanted.next();
        while let Some(part) = response.chunk().await.map_err(broken)? {
            let mut part: &[u8] = &part;
            while let Some(chunk) = current {
                let length = usize::try_from(chunk.entry.stored_bytes).unwrap_or(0);
                let Some(stored) = cutter.take(&mut part, length) else { break };
                let job = Job { chunk: *chunk, stored };
                writers.submit(job).await.map_err(|_| RangeError::WritersStopped)?;
                *next += 1;
                current = wanted.next();
            }
        }
        if current.is_some() { Err(RangeError::Broken("the stream ended early".into())) } else { Ok(()) }
    }

    /// Fetches a whole body of at most `bytes_max`, trying again while it fails.
    async fn whole(&self, what: &str, url: &str, bytes_max: usize) -> Result<Vec<u8>, FetchError> {
        let mut backoff = retry::Backoff::default();
        loop {
            match self.whole_once(url, bytes_max).await {
                Ok(bytes) => return Ok(bytes),
                Err(why) => self.pause(&mut backoff, what, why).await?,
            }
        }
    }

    async fn whole_once(&self, url: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
        let mut response = self.client.get(url).send().await.map_err(|e| reasons(&e))?;
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|e| reasons(&e))? {
            if bytes.len() + part.len() > bytes_max {
                return Err(format!("longer than {bytes_max} bytes"));
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes)
    }

    async fn pause(&self, backoff: &mut retry::Backoff, what: &str, why: String) -> Result<(), FetchError> {
        let pause = backoff.next(retry::random());
        if backoff.failures() > limits::CONTENT_RETRIES_MAX {
            return Err(FetchError::Unavailable { what: what.to_string(), why });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Why an image is not on the disk.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Its content cannot be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Streams a layout to a disk and fetches chunks that arrive damaged once more, by their names. Holes are not touched.
pub async fn fetch_image(
    source: &Source,
    digest: ManifestDigest,
    layout: &Layout,
    target: &Target,
    outcome: &Arc<Outcome>,
) -> Result<(), ImageError> {
    let mut writers = Writers::start(target, outcome, writers_of_this_machine());
    let streamed = source.stream(digest, layout, &mut writers).await;
    // The writers' own error says more than that they stopped.
    finish(writers).await?;
    streamed?;
    let damaged = outcome.take_damaged();
    if damaged.is_empty() {
        return Ok(());
    }
    crate::log!("{} chunks arrived damaged and are fetched again", damaged.len());
    if damaged.len() > limits::BAD_CHUNKS_MAX {
        return Err(FetchError::Damaged(format!("the image ({} chunks)", damaged.len())).into());
    }
    let mut writers = Writers::start(target, outcome, 1);
    for chunk in damaged {
        let stored = source.chunk(&chunk).await?;
        if writers.submit(Job { chunk, stored }).await.is_err() {
            break;
        }
    }
    finish(writers).await?;
    match outcome.take_damaged().first() {
        Some(chunk) => Err(FetchError::Damaged(format!("chunk {}", chunk.entry.name)).into()),
        None => Ok(()),
    }
}

async fn finish(writers: Writers) -> Result<(), ImageError> {
    match tokio::task::spawn_blocking(move || writers.finish()).await {
        Ok(result) => Ok(result?),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

/// How many writers a machine gets: one per processor, within the limit.
fn writers_of_this_machine() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(limits::WRITERS_MAX)
}

enum RangeError {
    Broken(String),
    WritersStopped,
}

/// First and last byte of the longest request from the first of `chunks`: whole chunks, next to each other, within the limit.
fn range(chunks: &[Placed]) -> (u64, u64) {
    let first = chunks.first().map_or(0, |c| c.stored_offset);
    let ends = chunks.iter().map(|c| c.stored_offset + u64::from(c.entry.stored_bytes));
    let end = ends.take_while(|end| end - first <= limits::RANGE_BYTES_MAX).last().unwrap_or(first);
    (first, end.saturating_sub(1))
}

/// Cuts a stream of parts into pieces of given lengths, holding at most one piece.
#[derive(Default)]
struct Cutter {
    held: Vec<u8>,
}

impl Cutter {
    /// A piece of `length` bytes from what is held and the start of `part`; without enough, `part` is held whole.
    fn take(&mut self, part: &mut &[u8], length: usize) -> Option<Vec<u8>> {
        let missing = length.saturating_sub(self.held.len());
        match part.split_at_checked(missing) {
            Some((now, later)) => {
                self.held.reserve_exact(missing);
                self.held.extend_from_slice(now);
                *part = later;
                Some(std::mem::take(&mut self.held))
            }
            None => {
                self.held.reserve_exact(missing);
                self.held.extend_from_slice(part);
                *part = &[];
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::ChunkName;
    use bootstorm_snapshot::manifest::Entry;

    #[test]
    fn pieces_are_the_same_however_the_stream_is_parted() {
        let stream: Vec<u8> = (0..=255).collect();
        let lengths = [1usize, 100, 3, 50, 102];
        for part_bytes in 1..=256 {
            let mut cutter = Cutter::default();
            let (mut pieces, mut wanted) = (Vec::new(), lengths.iter().peekable());
            for mut part in stream.chunks(part_bytes) {
                while let Some(length) = wanted.peek() {
                    let Some(piece) = cutter.take(&mut part, **length) else { break };
                    pieces.push(piece);
                    wanted.next();
                }
            }
            assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), lengths, "parts of {part_bytes}");
            assert_eq!(pieces.concat(), stream);
        }
    }

    #[test]
    fn ranges_end_with_a_whole_chunk_within_the_limit() {
        let chunk = |n: u64| Placed {
            entry: Entry { name: ChunkName([1; 32]), raw_bytes: 262_144, stored_bytes: 200_000 },
            raw_offset: n * 262_144,
            stored_offset: n * 200_000,
        };
        let chunks: Vec<Placed> = (0..1000).map(chunk).collect();
        let (first, last) = range(&chunks);
        assert_eq!((first, (last + 1) % 200_000), (0, 0));
        assert!(last < limits::RANGE_BYTES_MAX && last + 200_000 >= limits::RANGE_BYTES_MAX);
        assert_eq!(range(&chunks[999..]), (999 * 200_000, 1000 * 200_000 - 1));
    }
}
