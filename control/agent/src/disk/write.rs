//! The writers: each chunk is held whole, hashed, and only then decompressed and written.
//!
//! One thread per writer takes jobs from a bounded queue of its own; the network task fills the queues in turn. A chunk
//! whose bytes are not what its name says is never written: it comes back to be fetched again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bootstorm_snapshot::limits::CHUNK_RAW_BYTES;
use bootstorm_snapshot::{ChunkName, Encoding};
use tokio::sync::mpsc;

use super::block::{Access, Buffer, Device};
use super::layout::Placed;
use crate::limits;

/// A chunk as it arrived.
pub struct Job {
    /// What it should be, and where it goes.
    pub chunk: Placed,
    /// Its stored bytes, not yet trusted.
    pub stored: Vec<u8>,
}

/// Why an image cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// A chunk's bytes have the right hash, but do not decompress to the length that the manifest says.
    #[error("chunk {0} does not hold what the manifest says")]
    Content(ChunkName),
    /// The disk failed.
    #[error("the disk failed at byte {0}: {1}")]
    Disk(u64, io::Error),
}

/// What the writers have done, shared by all of them.
#[derive(Default)]
pub struct Outcome {
    /// Raw bytes written.
    pub written: AtomicU64,
    damaged: Mutex<Vec<Placed>>,
    failed: Mutex<Option<WriteError>>,
}

impl Outcome {
    /// Chunks that arrived damaged since the last call.
    pub fn take_damaged(&self) -> Vec<Placed> {
        std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take_failed(&self) -> Option<WriteError> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Where and how an image is written.
#[derive(Clone)]
pub struct Target {
    /// The disk.
    pub device: Arc<Device>,
    /// How it was opened.
    pub access: Access,
    /// How the image's chunks are stored.
    pub encoding: Encoding,
}

/// Running writers of one image.
pub struct Writers {
    queues: Vec<mpsc::Sender<Job>>,
    threads: Vec<std::thread::JoinHandle<()>>,
    turn: usize,
    outcome: Arc<Outcome>,
}

/// The writers have stopped; [`Writers::finish`] says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

impl Writers {
    /// Starts `count` writers that add what they do to `outcome`.
    pub fn start(target: &Target, outcome: &Arc<Outcome>, count: usize) -> Writers {
        let mut writers = Writers { queues: Vec::new(), threads: Vec::new(), turn: 0, outcome: Arc::clone(outcome) };
        for _ in 0..count.clamp(1, limits::WRITERS_MAX) {
            let (queue, jobs) = mpsc::channel(limits::CHUNKS_QUEUED_PER_WRITER);
            let (target, outcome) = (target.clone(), Arc::clone(outcome));
            writers.threads.push(std::thread::spawn(move || run_writer(jobs, &target, &outcome)));
            writers.queues.push(queue);
        }
        writers
    }

    /// Gives a chunk to the next writer; waits while its queue is full.
    pub async fn submit(&mut self, job: Job) -> Result<(), Stopped> {
        self.turn = (self.turn + 1) % self.queues.len().max(1);
        let queue = self.queues.get(self.turn).ok_or(Stopped)?;
        queue.send(job).await.map_err(|_| Stopped)
    }

    /// Waits until everything submitted is written or has failed. Blocks.
    pub fn finish(self) -> Result<(), WriteError> {
        drop(self.queues);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        match self.outcome.take_failed() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn run_writer(mut jobs: mpsc::Receiver<Job>, target: &Target, outcome: &Outcome) {
    let mut buffer = Buffer::new(usize::try_from(CHUNK_RAW_BYTES).unwrap_or(0).next_multiple_of(4096) + 4096);
    while let Some(Job { chunk, stored }) = jobs.blocking_recv() {
        if ChunkName::of(&stored) != chunk.entry.name {
            outcome.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
            continue;
        }
        match write(target, &chunk, &stored, &mut buffer) {
            Ok(()) => {
                outcome.written.fetch_add(u64::from(chunk.entry.raw_bytes), Ordering::Relaxed);
            }
            Err(error) => {
                *outcome.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                // Leaving drops the queue's end, so that the network task stops as well.
                return;
            }
        }
    }
}

/// Writes one verified chunk; in direct mode the image's last bytes are filled up to a block with zeros.
fn write(target: &Target, chunk: &Placed, stored: &[u8], buffer: &mut Buffer) -> Result<(), WriteError> {
    let Target { device, access, encoding } = target;
    let content = || WriteError::Content(chunk.entry.name);
    let length = usize::try_from(chunk.entry.raw_bytes).map_err(|_| content())?;
    let raw = buffer.get_mut(..length).ok_or_else(content)?;
    match encoding {
        Encoding::Plain if stored.len() == length => raw.copy_from_slice(stored),
        Encoding::Plain => return Err(content()),
        Encoding::Zstd => {
            // The target is exactly as long as the manifest says: a longer frame is an error, not a longer write.
            if !matches!(zstd::bulk::decompress_to_buffer(stored, raw), Ok(done) if done == length) {
                return Err(content());
            }
        }
    }
    let block = usize::try_from(device.block_bytes).unwrap_or(4096).max(1);
    let rounded = match access {
        Access::Direct => length.next_multiple_of(block),
        Access::Cached => length,
    };
    buffer.get_mut(length..rounded).ok_or_else(content)?.fill(0);
    device.write_at(buffer, rounded, chunk.raw_offset).map_err(|error| WriteError::Disk(chunk.raw_offset, error))
}

#[cfg(test)]
mod tests {
    use super::super::block::tests::Scratch;
    use super::super::layout::lay_out;
    use super::*;
    use bootstorm_snapshot::manifest::Entry;
    use bootstorm_snapshot::{ImageId, Manifest};

    fn packed(raw: &[u8]) -> (Entry, Vec<u8>) {
        let stored = zstd::bulk::compress(raw, 3).expect("compress");
        let name = ChunkName::of(&stored);
        let lengths = (u32::try_from(raw.len()).expect("short"), u32::try_from(stored.len()).expect("short"));
        (Entry { name, raw_bytes: lengths.0, stored_bytes: lengths.1 }, stored)
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().expect("runtime")
    }

    #[test]
    fn t4_a_damaged_chunk_is_not_written_and_the_rest_is() {
        let scratch = Scratch::new("write", 64 << 10);
        let device = Arc::new(Device::open(&scratch.0, 512, Access::Cached).expect("open"));
        let (first, first_bytes) = packed(&[1; 8192]);
        let (second, mut second_bytes) = packed(&[2; 8192]);
        let (last, last_bytes) = packed(&[3; 700]);
        second_bytes[9] ^= 1;
        let manifest = Manifest::new(Encoding::Zstd, ImageId([0; 32]), 17_084, "test", vec![first, second, last]);
        let layout = lay_out(&manifest.expect("consistent"), 512);
        let (access, outcome) = (layout.access, Arc::new(Outcome::default()));
        let mut writers = Writers::start(&Target { device, access, encoding: Encoding::Zstd }, &outcome, 2);
        runtime().block_on(async {
            for (chunk, stored) in layout.chunks.iter().zip([first_bytes, second_bytes, last_bytes]) {
                writers.submit(Job { chunk: *chunk, stored }).await.expect("running");
            }
        });
        writers.finish().expect("written");
        assert_eq!(outcome.written.load(Ordering::Relaxed), 8892);
        assert_eq!(outcome.take_damaged(), [layout.chunks[1]]);
        let bytes = std::fs::read(&scratch.0).expect("read");
        assert!(bytes[..8192].iter().all(|b| *b == 1));
        assert!(bytes[8192..16384].iter().all(|b| *b == 0xaa), "nothing of a damaged chunk may reach the disk");
        assert!(bytes[16384..17084].iter().all(|b| *b == 3) && bytes[17084..17408].iter().all(|b| *b == 0));
        assert_eq!(bytes[17408], 0xaa);
    }

    #[test]
    fn a_chunk_that_unpacks_to_more_or_less_stops_the_writers() {
        for wrong in [8191, 8193] {
            let scratch = Scratch::new(&format!("longer-{wrong}"), 64 << 10);
            let device = Arc::new(Device::open(&scratch.0, 512, Access::Cached).expect("open"));
            let target = Target { device, access: Access::Cached, encoding: Encoding::Zstd };
            let (mut entry, stored) = packed(&[1; 8192]);
            entry.raw_bytes = wrong;
            let chunk = Placed { entry, raw_offset: 0, stored_offset: 0 };
            let mut writers = Writers::start(&target, &Arc::new(Outcome::default()), 1);
            runtime().block_on(writers.submit(Job { chunk, stored })).expect("running");
            assert!(matches!(writers.finish(), Err(WriteError::Content(name)) if name == entry.name));
            assert_eq!(std::fs::read(&scratch.0).expect("read")[0], 0xaa);
        }
    }
}
