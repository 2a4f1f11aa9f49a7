//! Boot environments: a tar becomes plain files in the content store and one record that racks see.

use std::io::Read;
use std::sync::Arc;

use axum::body::Body;
use bootstorm_model::{BootEnvironment, Severity};
use bootstorm_snapshot::Encoding;
use bootstorm_snapshot::record::{Environment, File};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::sync::mpsc;

use crate::bootenv::{self, BootEnvironmentFiles};
use crate::control::{Control, log, now};
use crate::error::{Error, Result};
use crate::http::extract::drain;
use crate::limits;
use crate::machines::Caller;

/// Pieces of the body between the connection and the reader.
const PIECES: usize = 16;

/// Imports a boot environment and puts it in force for its architecture.
pub(crate) async fn import(
    control: &Arc<Control>,
    bytes: Option<u64>,
    mut body: Body,
    caller: &Caller,
) -> Result<BootEnvironment> {
    let max = limits::ENVIRONMENT_BYTES_MAX;
    let too_large = || Error::TooLarge { what: "a boot environment", max };
    if bytes.is_some_and(|bytes| bytes > max) {
        drain(&mut body).await;
        return Err(too_large());
    }
    let (pieces, received) = mpsc::channel(PIECES);
    let reading = tokio::task::spawn_blocking(move || bootenv::read(Pieces { received, current: Bytes::new() }));
    let fed = feed(body, pieces, max).await;
    let files = reading.await.map_err(|_| Error::Task)?;
    if !fed? {
        return Err(too_large());
    }
    let files = files.map_err(|error| Error::invalid("boot environment", error))?;
    let content = control.content.clone();
    let stored = tokio::task::spawn_blocking(move || store(&content, &files));
    let environment = stored.await.map_err(|_| Error::Task)??;
    let environment = BootEnvironment { environment, created: now() };
    control.store.put_boot_environment(&environment).await?;
    let text = format!(
        "boot environment `{}` for {} is in force",
        environment.environment.version, environment.environment.architecture
    );
    control.commit(vec![log(Severity::Info, "boot-environment-imported", None, None, &caller.actor, text)]).await?;
    Ok(environment)
}

/// Hands the body over; false if it has more than `max` octets. A reader that has seen enough is left alone.
async fn feed(mut body: Body, pieces: mpsc::Sender<Bytes>, max: u64) -> Result<bool> {
    let mut done = 0u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::Stream(std::io::Error::other(error)))?;
        let Ok(bytes) = frame.into_data() else { continue };
        done += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if done > max {
            drain(&mut body).await;
            return Ok(false);
        }
        // The rest is read and dropped, so that the client hears what is wrong instead of a broken connection.
        let _ = pieces.send(bytes).await;
    }
    Ok(true)
}

/// A body as a reader that blocks.
struct Pieces {
    received: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.received.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        let piece = self.current.split_to(count);
        if let Some(start) = buffer.get_mut(..count) {
            start.copy_from_slice(&piece);
        }
        Ok(count)
    }
}

fn store(content: &bootstorm_content::Store, files: &BootEnvironmentFiles) -> Result<Environment> {
    let mut writer = content.writer();
    let mut put = |name: &str, bytes: &[u8]| -> Result<File> {
        let manifest = writer.pack(bytes, Encoding::Plain)?;
        let header = manifest.header();
        let (raw, raw_bytes, encoding) = (header.raw, header.raw_bytes, header.encoding);
        Ok(File { name: name.to_string(), manifest: manifest.digest(), raw, raw_bytes, encoding })
    };
    let loaders = files.loaders.iter().map(|(name, bytes)| put(name, bytes)).collect::<Result<Vec<_>>>()?;
    Ok(Environment {
        architecture: files.metadata.architecture,
        version: files.metadata.version.clone(),
        // Racks serve kernel and initial RAM disk under fixed paths; the name tells people the kernel's release.
        kernel: put(&files.metadata.kernel_release, &files.kernel)?,
        initrd: put("initrd", &files.initrd)?,
        command_line: files.metadata.command_line.clone(),
        loaders,
    })
}
