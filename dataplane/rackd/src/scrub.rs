//! The thread that reads content again, slowly, so that what has rotted is found and fetched before somebody waits for it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bootstorm_content::{Error, Store};

use crate::limits;
use crate::mail::Fill;
use crate::metrics::Metrics;
use crate::stop::Stop;

/// Goes over the store again and again until the role ends. Without `fill` rot is only dropped, and said.
pub(crate) fn run(store: &Store, metrics: &Arc<Metrics>, fill: Option<&SyncSender<Fill>>, stop: &Stop) {
    loop {
        for part in 0..Store::NAME_PARTS {
            for name in store.chunk_names(part) {
                let pause = match store.read_chunk(&name) {
                    Ok(bytes) => {
                        metrics.scrubbed("chunks", 1);
                        metrics.scrubbed("bytes", bytes.len() as u64);
                        pause(bytes.len() as u64)
                    }
                    Err(error @ Error::Corrupt { .. }) => {
                        tracing::warn!(%error, "content has rotted");
                        metrics.scrubbed("rotten", 1);
                        if let Some(fill) = fill {
                            let _ = fill.send(Fill::Lost);
                        }
                        Duration::ZERO
                    }
                    // Let go or moved in between.
                    Err(_) => Duration::ZERO,
                };
                if stop.wait(pause) {
                    return;
                }
            }
        }
        metrics.scrubbed("rounds", 1);
        if stop.wait(limits::SCRUB_PAUSE) {
            return;
        }
    }
}

/// How long reading so many octets may take at the scrub's pace.
fn pause(bytes: u64) -> Duration {
    Duration::from_secs(1).mul_f64(bytes as f64 / limits::SCRUB_BYTES_PER_SECOND as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_the_limit() {
        assert_eq!(pause(limits::SCRUB_BYTES_PER_SECOND * 3), Duration::from_secs(3));
        assert_eq!(pause(0), Duration::ZERO);
    }
}
