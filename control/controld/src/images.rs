//! Image imports: the body of an upload goes to an importer process, what that sends goes into the content store.
//!
//! Everything but qcow2 is streamed: no file of the image's size exists anywhere but in the content store. A qcow2 points back and
//! forth in its file, so it is spooled first, into a file without a name that is limited in size and gone with its descriptor. The
//! importer knows nothing and can do nothing but filter; what it sends is checked by `importer::ingest`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use bootstorm_content::Writer;
use bootstorm_model::operation::stage_word;
use bootstorm_model::{Image, ImageState, Name, OperationState, Outcome, Parameters, Severity};
use bootstorm_snapshot::observation::{Failure, Progress};
use bootstorm_snapshot::{Architecture, Manifest, OperationId, Stage};
use bootstorm_store::{Change, OperationFilter, Page};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::control::{Control, log, now};
use crate::error::{Error, Result};
use crate::http::extract::drain;
use crate::importer::{ImportOptions, IngestError, IngestLimits, ingest};
use crate::machines::Caller;
use crate::observe::new_operation;

/// First octets of a qcow2 file (its magic), which decide whether a source is spooled.
const QCOW2_MAGIC: &[u8] = b"QFI\xfb";
/// Progress is stored at most this often.
const PROGRESS_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Imports under way that can be stopped.
#[derive(Default)]
pub(crate) struct Imports(Mutex<HashMap<OperationId, watch::Sender<bool>>>);

impl Imports {
    fn enter(&self, id: OperationId) -> watch::Receiver<bool> {
        let sender = watch::Sender::new(false);
        let receiver = sender.subscribe();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        receiver
    }

    fn leave(&self, id: OperationId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Stops an import; nothing happens if there is none of that id.
    pub(crate) fn stop(&self, id: OperationId) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&id) {
            sender.send_replace(true);
        }
    }
}

/// What to import.
pub(crate) struct Wanted {
    pub name: Name,
    pub architecture: Architecture,
    /// Octets of the body, if the client says.
    pub bytes_total: Option<u64>,
}

/// Ends imports that an earlier process began: their bodies are gone with it.
pub(crate) async fn end_orphans(control: &Arc<Control>) -> Result<()> {
    let filter = OperationFilter { machine: None, state: Some(OperationState::Running) };
    let mut page = Page::first(bootstorm_store::limits::PAGE_ITEMS_MAX);
    loop {
        let operations = control.store.operations(&filter, &page).await?;
        for operation in operations.iter().filter(|operation| operation.machine.is_none()) {
            let evidence = "control was started anew while the image was being imported".to_string();
            let failure = Failure { stage: operation.stage, code: "control-restarted".into(), evidence };
            let outcome = Outcome::Failed(failure);
            control.commit(vec![Change::FinishOperation { operation: operation.id, outcome }]).await?;
        }
        match operations.last() {
            Some(last) if operations.len() >= bootstorm_store::limits::PAGE_ITEMS_MAX as usize => {
                page.after = Some(last.id)
            }
            _ => return Ok(()),
        }
    }
}

/// Takes an upload to its end and lets the import run on: the operation, which may not be over yet.
pub(crate) async fn import(
    control: &Arc<Control>,
    wanted: Wanted,
    mut body: Body,
    caller: &Caller,
) -> Result<bootstorm_model::Operation> {
    if let Some(key) = &caller.key
        && let Some(operation) = control.store.operation_by_key(key).await?
    {
        drain(&mut body).await;
        return Ok(operation);
    }
    if let Err(error) = check(control, &wanted).await {
        drain(&mut body).await;
        return Err(error);
    }
    let parameters = Parameters::ImageImport { name: wanted.name.to_string() };
    let operation = new_operation(parameters, &caller.actor, caller.key.clone())?;
    let id = operation.id;
    let text = format!("image `{}` is being imported", wanted.name);
    let entry = log(Severity::Info, "image-import", None, Some(id), &caller.actor, text);
    control.commit(vec![Change::StartOperation(operation), entry]).await?;
    let mut stopped = control.imports.enter(id);
    let max = control.config.upload_bytes_max;
    let mut upload =
        Upload { control: control.clone(), id, body, done: 0, max, total: wanted.bytes_total, noted: Instant::now() };
    let running = tokio::select! {
        running = upload.run() => running,
        _ = stopped.wait_for(|stopped| *stopped) => Err(cancelled()),
    };
    match running {
        Ok(import) => {
            let (control, actor) = (control.clone(), caller.actor.clone());
            tokio::spawn(async move {
                let finished = tokio::select! {
                    finished = import.finish() => finished,
                    _ = stopped.wait_for(|stopped| *stopped) => Err(cancelled()),
                };
                if let Err(error) = conclude(&control, id, &wanted, finished, &actor).await {
                    tracing::error!(%error, operation = %id, "the end of an import cannot be noted");
                }
            });
        }
        Err(error) => {
            drain(&mut upload.body).await;
            let too_large = matches!(error, Error::TooLarge { .. });
            conclude(control, id, &wanted, Err(error), &caller.actor).await?;
            if too_large {
                return Err(Error::TooLarge { what: "an image", max });
            }
        }
    }
    crate::machines::operation_of(control, id).await
}

/// What can be said before the first octet.
async fn check(control: &Control, wanted: &Wanted) -> Result<()> {
    let max = control.config.upload_bytes_max;
    if wanted.bytes_total.is_some_and(|bytes| bytes > max) {
        return Err(Error::TooLarge { what: "an image", max });
    }
    match control.store.image(&wanted.name).await? {
        Some(known) => {
            let message = format!("image `{}` exists; delete it first, or choose another name", known.name);
            Err(Error::Conflict { code: "image-exists", message })
        }
        None => Ok(()),
    }
}

fn cancelled() -> Error {
    Error::Conflict { code: "cancelled", message: "the import was stopped".to_string() }
}

/// An importer that has its whole input.
struct Import {
    ingesting: tokio::task::JoinHandle<std::result::Result<Manifest, IngestError>>,
    /// The importer, killed with this; a test's importer is a thread and has none.
    child: Option<Child>,
}

/// How the importer role is run.
#[derive(Debug, Clone)]
pub enum Importer {
    /// As a process: program and arguments; its options are appended as one argument.
    Process(Vec<OsString>),
    /// As a thread, which shares everything with control: for tests.
    #[cfg(test)]
    Thread,
}

impl Importer {
    fn start(&self, options: &ImportOptions, source: File, output: File) -> Result<Option<Child>> {
        match self {
            Self::Process(command) => {
                let (program, arguments) = command.split_first().ok_or(Error::Task)?;
                let child = Command::new(program)
                    .args(arguments)
                    .arg(options.to_argument())
                    .env_clear()
                    .stdin(source)
                    .stdout(output)
                    .stderr(Stdio::inherit())
                    .kill_on_drop(true)
                    .spawn()
                    .map_err(Error::file(program))?;
                Ok(Some(child))
            }
            #[cfg(test)]
            Self::Thread => {
                let options = options.clone();
                std::thread::spawn(move || crate::importer::run_importer(&options, source, output));
                Ok(None)
            }
        }
    }
}

impl Import {
    async fn finish(mut self) -> Result<Manifest> {
        let outcome = (&mut self.ingesting).await.map_err(|_| Error::Task)?;
        // It has closed its output, so it ends by itself; whatever it still says changes nothing.
        if let Some(child) = &mut self.child {
            let _ = child.kill().await;
        }
        outcome.map_err(failed)
    }
}

fn failed(error: IngestError) -> Error {
    match error {
        IngestError::Content(error) => Error::Content(error),
        IngestError::Importer { code, message } => Error::Invalid { what: format!("image ({code})"), problem: message },
        other => Error::invalid("image", other),
    }
}

struct Upload {
    control: Arc<Control>,
    id: OperationId,
    body: Body,
    done: u64,
    max: u64,
    total: Option<u64>,
    noted: Instant,
}

impl Upload {
    async fn run(&mut self) -> Result<Import> {
        let mut first = Vec::new();
        while first.len() < QCOW2_MAGIC.len() {
            match self.next().await? {
                Some(bytes) => first.extend_from_slice(&bytes),
                None => break,
            }
        }
        if first.starts_with(QCOW2_MAGIC) { self.spooled(first).await } else { self.piped(first).await }
    }

    /// The next octets of the body, counted.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| Error::Stream(std::io::Error::other(error)))?;
            let Ok(bytes) = frame.into_data() else { continue };
            self.done += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            if self.done > self.max {
                return Err(Error::TooLarge { what: "an image", max: self.max });
            }
            if self.noted.elapsed() >= PROGRESS_PAUSE {
                self.noted = Instant::now();
                let progress = Progress { bytes: self.done, bytes_total: self.total.unwrap_or(self.done) };
                let operation = self.id;
                let change =
                    Change::Progress { operation, stage: Stage::Write, progress: Some(progress), restart: false };
                self.control.commit(vec![change]).await?;
            }
            return Ok(Some(bytes));
        }
    }

    async fn spooled(&mut self, first: Vec<u8>) -> Result<Import> {
        let directory = self.control.config.data.join("control");
        let file = tokio::task::spawn_blocking(move || spool_file(&directory)).await.map_err(|_| Error::Task)??;
        let mut spool = tokio::fs::File::from_std(file);
        spool.write_all(&first).await.map_err(Error::Stream)?;
        while let Some(bytes) = self.next().await? {
            spool.write_all(&bytes).await.map_err(Error::Stream)?;
        }
        spool.flush().await.map_err(Error::Stream)?;
        tokio::io::AsyncSeekExt::rewind(&mut spool).await.map_err(Error::Stream)?;
        let spool = spool.into_std().await;
        self.start(spool)
    }

    async fn piped(&mut self, first: Vec<u8>) -> Result<Import> {
        let (source, input) = std::io::pipe().map_err(Error::Stream)?;
        let import = self.start(File::from(OwnedFd::from(source)))?;
        let mut input = pipe::Sender::from_owned_fd(input.into()).map_err(Error::Stream)?;
        // An importer that has found something wrong stops reading; its own words are better than a broken pipe's.
        if input.write_all(&first).await.is_ok() {
            while let Some(bytes) = self.next().await? {
                if input.write_all(&bytes).await.is_err() {
                    drain(&mut self.body).await;
                    break;
                }
            }
        }
        Ok(import)
    }

    fn start(&self, source: File) -> Result<Import> {
        let options = ImportOptions::image();
        let (received, output) = std::io::pipe().map_err(Error::Stream)?;
        let child = self.control.importer.start(&options, source, File::from(OwnedFd::from(output)))?;
        let writer = self.control.content.writer();
        let limits = IngestLimits {
            encoding: options.encoding,
            raw_bytes_max: options.raw_bytes_max,
            // Compressed octets that came in can hardly grow on their way out.
            stored_bytes_max: options.raw_bytes_max,
        };
        let ingesting = tokio::task::spawn_blocking(move || take(File::from(OwnedFd::from(received)), writer, limits));
        Ok(Import { ingesting, child })
    }
}

fn take(output: File, mut writer: Writer, limits: IngestLimits) -> std::result::Result<Manifest, IngestError> {
    ingest(output, &mut writer, &limits).map(|(manifest, _)| manifest)
}

/// A file without a name.
fn spool_file(directory: &std::path::Path) -> Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR);
    file.map(File::from).map_err(|errno| Error::file(directory)(errno.into()))
}

/// Stores the image or the failure, and ends the operation.
async fn conclude(
    control: &Arc<Control>,
    id: OperationId,
    wanted: &Wanted,
    finished: Result<Manifest>,
    actor: &str,
) -> Result<()> {
    control.imports.leave(id);
    let stored = match finished {
        Ok(manifest) => {
            let header = manifest.header();
            let image = Image {
                name: wanted.name.clone(),
                id: header.raw,
                manifest: manifest.digest(),
                raw_bytes: header.raw_bytes,
                stored_bytes: manifest.stored_bytes(),
                encoding: header.encoding,
                architecture: Some(wanted.architecture),
                state: ImageState::Ready,
                created: now(),
            };
            control.store.put_image(&image).await.map_err(Error::from)
        }
        Err(error) => Err(error),
    };
    let (severity, code, text, outcome) = match stored {
        Ok(()) => {
            let text = format!("image `{}` has been imported", wanted.name);
            (Severity::Info, "image-imported", text, Outcome::Done { warnings: Vec::new() })
        }
        Err(error) => {
            let text = format!("image `{}` was not imported: {error}", wanted.name);
            let code = match &error {
                Error::Conflict { code, .. } => (*code).to_string(),
                Error::TooLarge { .. } => "image-too-large".to_string(),
                Error::Stream(_) => "upload-broken-off".to_string(),
                _ => "image-invalid".to_string(),
            };
            let stage = Stage::Write;
            tracing::warn!(operation = %id, stage = stage_word(stage), %error, "an import failed");
            let failure = Failure { stage, code, evidence: error.to_string() };
            (Severity::Error, "image-import-failed", text, Outcome::Failed(failure))
        }
    };
    let entry = log(severity, code, None, Some(id), actor, text);
    control.commit(vec![Change::FinishOperation { operation: id, outcome }, entry]).await
}

/// Forgets an image, and its content if nothing else is made of it.
pub(crate) async fn delete(control: &Arc<Control>, name: &Name, caller: &Caller) -> Result<()> {
    let image = control.store.image(name).await?;
    let image = image.ok_or_else(|| Error::NotFound { what: "image", id: name.to_string() })?;
    control.store.delete_image(name).await?;
    if !control.store.image_in_use(image.id).await? {
        let content = control.content.clone();
        let removed = tokio::task::spawn_blocking(move || content.remove_manifest(&image.manifest));
        removed.await.map_err(|_| Error::Task)??;
    }
    let text = format!("image `{name}` has been deleted");
    control.commit(vec![log(Severity::Info, "image-deleted", None, None, &caller.actor, text)]).await
}
