//! The racks' link (`bootstorm_api::link`): one task set per rack, so that a slow rack blocks nobody.
//!
//! A link's writer alone decides which part of the snapshot its rack needs next: it looks at what is published and at what it last
//! sent. Everything else (acknowledgements, content, secrets) comes through a bounded queue that only the rack's own requests and
//! the secrets of its machines can fill.

use std::collections::{HashMap, HashSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bootstorm_api::agent::{Secrets, base64_text::Base64};
use bootstorm_api::frame;
use bootstorm_api::limits::{FRAME_BLOB_BYTES_MAX, OBSERVATIONS_BATCH_MAX, WISHES_IN_FLIGHT_MAX};
use bootstorm_api::link::{ToControl, ToGateway};
use bootstorm_api::local::Wish;
use bootstorm_api::role::RackInterface;
use bootstorm_model::{Name, OperationState, Rack};
use bootstorm_snapshot::limits::FRAME_BYTES_MAX;
use bootstorm_snapshot::{Generation, ManifestDigest, Observation, OperationId, RackId, View, codec};
use bootstorm_store::{OperationFilter, Page, SecretContext};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::control::{Control, now};
use crate::error::{Error, Result};
use crate::observe::Link;
use crate::publish::Published;
use crate::{frames, limits, networks, observe};

/// Racks that are connected.
pub(crate) struct Racks {
    live: Mutex<HashMap<RackId, Live>>,
    changed: watch::Sender<u64>,
}

/// What is known about a connected rack.
#[derive(Clone)]
pub(crate) struct Live {
    link: u64,
    queue: mpsc::Sender<Vec<u8>>,
    /// Version of its software.
    pub version: String,
    /// Interfaces it serves.
    pub interfaces: Vec<RackInterface>,
    /// Generation it serves.
    pub generation: Generation,
    /// Files of that generation it lacks.
    pub missing: HashSet<ManifestDigest>,
    /// Operations whose secrets its gateway holds.
    pub held: HashSet<OperationId>,
}

impl Racks {
    pub(crate) fn new() -> Self {
        Self { live: Mutex::default(), changed: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RackId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever what is known about any rack does.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Every connected rack.
    pub(crate) fn all(&self) -> Vec<(RackId, Live)> {
        self.lock().iter().map(|(id, live)| (*id, live.clone())).collect()
    }

    /// What is known about one rack, if it is connected.
    pub(crate) fn one(&self, rack: RackId) -> Option<Live> {
        self.lock().get(&rack).cloned()
    }

    fn enter(&self, rack: RackId, live: Live) {
        self.lock().insert(rack, live);
        self.bump();
    }

    fn leave(&self, rack: RackId, link: u64) {
        let mut racks = self.lock();
        if racks.get(&rack).is_some_and(|live| live.link == link) {
            racks.remove(&rack);
        }
        drop(racks);
        self.bump();
    }

    fn update(&self, rack: RackId, link: u64, change: impl FnOnce(&mut Live)) {
        if let Some(live) = self.lock().get_mut(&rack).filter(|live| live.link == link) {
            change(live);
        }
        self.bump();
    }

    fn bump(&self) {
        metrics::gauge!("bootstorm_racks_connected").set(self.lock().len() as f64);
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Live {
    /// Queues a message; false if the queue is full or the link is gone.
    pub(crate) fn tell(&self, message: &ToGateway, attachment: &[u8]) -> bool {
        frame::encode(message, attachment).is_ok_and(|frame| self.queue.try_send(frame).is_ok())
    }
}

/// Binds the racks' socket: mode 0600, an old one at its place is removed.
pub(crate) fn bind(path: &Path) -> Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::file(path)(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(Error::file(path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(Error::file(path))?;
    Ok(listener)
}

/// Accepts racks until the task is dropped.
pub(crate) async fn run(control: Arc<Control>, listener: UnixListener) {
    let slots = Arc::new(Semaphore::new(limits::RACKS_MAX));
    let mut links = JoinSet::new();
    let mut number = 0u64;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "a rack cannot be accepted");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                };
                let Ok(slot) = slots.clone().try_acquire_owned() else {
                    tracing::warn!("a rack is refused: {} are connected", limits::RACKS_MAX);
                    continue;
                };
                number += 1;
                let (control, link) = (control.clone(), number);
                links.spawn(async move {
                    let _slot = slot;
                    match serve(&control, stream, link).await {
                        Ok(()) => tracing::info!(link, "the link of a rack ended"),
                        Err(error) => tracing::warn!(link, %error, "the link of a rack failed"),
                    }
                });
            }
            Some(_) = links.join_next(), if !links.is_empty() => {}
        }
    }
}

async fn serve(control: &Arc<Control>, stream: UnixStream, link: u64) -> Result<()> {
    let (mut reader, mut writer) = stream.into_split();
    let greeting = greet(control, &mut reader, &mut writer);
    let hello = tokio::time::timeout(Duration::from_secs(limits::HELLO_SECONDS_MAX), greeting).await;
    let Some((rack, live, queued)) = hello.map_err(|_| Error::Link("no greeting in time".into()))?? else {
        return Ok(());
    };
    let generation = live.generation;
    control.racks.enter(rack, Live { link, ..live.clone() });
    tracing::info!(%rack, link, %generation, "a rack is connected");
    control.note_rack(rack, "rack-connected", "is connected").await;
    let mut tasks = JoinSet::new();
    let published = control.publisher.subscribe();
    tasks.spawn(write(writer, queued, published, generation));
    tasks.spawn(read(control.clone(), reader, rack, Live { link, ..live }));
    let outcome = tasks.join_next().await;
    tasks.abort_all();
    control.racks.leave(rack, link);
    control.note_rack(rack, "rack-disconnected", "is no longer connected").await;
    outcome.unwrap_or(Ok(Ok(()))).map_err(|_| Error::Task)?
}

type Greeted = (RackId, Live, mpsc::Receiver<Vec<u8>>);

/// Joins and greetings, until the rack has said who it is. `None` if it went without.
async fn greet(
    control: &Arc<Control>,
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
) -> Result<Option<Greeted>> {
    loop {
        let Some((message, _)) = frames::read::<ToControl>(reader).await? else { return Ok(None) };
        match message {
            ToControl::Join { token: _, name, csr_pem, addresses: _ } => match join(control, &name, &csr_pem).await {
                Ok(joined) => frames::write(writer, &joined, &[]).await?,
                Err(error) => return refuse(writer, error.to_string()).await,
            },
            ToControl::Hello { rack, version, interfaces, generation } => {
                if control.store.rack(rack).await?.is_none() {
                    let reason =
                        format!("no rack `{rack}` has joined; remove its gateway directory so that it joins again");
                    return refuse(writer, reason).await;
                }
                control.store.rack_seen(rack, generation, now()).await?;
                networks::adopt(control, &interfaces).await?;
                control.touch();
                let (queue, queued) = mpsc::channel(limits::RACK_QUEUE_FRAMES);
                let (missing, held) = (HashSet::new(), HashSet::new());
                let live = Live { link: 0, queue, version, interfaces, generation, missing, held };
                return Ok(Some((rack, live, queued)));
            }
            ToControl::Status { .. }
            | ToControl::Observations { .. }
            | ToControl::Wish { .. }
            | ToControl::SecretsHeld { .. }
            | ToControl::SecretsWanted => return Err(Error::Link("a rack speaks before it has said who it is".into())),
        }
    }
}

async fn refuse(writer: &mut OwnedWriteHalf, reason: String) -> Result<Option<Greeted>> {
    frames::write(writer, &ToGateway::Refused { reason: reason.clone() }, &[]).await?;
    Err(Error::Link(reason))
}

/// Makes the rack's key an intermediate CA. A rack that comes back under its name keeps its id.
async fn join(control: &Arc<Control>, name: &str, csr_pem: &str) -> Result<ToGateway> {
    let name: Name = name.parse().map_err(|error| Error::invalid("name of the rack", error))?;
    let known = control.store.racks().await?.into_iter().find(|rack| rack.name == name);
    let id = match &known {
        Some(rack) => rack.id,
        None => RackId::new(now().unix_milliseconds(), crate::seal::random()?),
    };
    let certificate = control.authority.certify_rack(id, csr_pem)?;
    let fingerprint = blake3::hash(certificate.der()).to_hex().to_string();
    let rack = match known {
        Some(rack) => Rack { certificate: fingerprint, seen: now(), ..rack },
        None => Rack {
            id,
            name,
            joined: now(),
            seen: now(),
            generation: Generation(0),
            observation_sequence: 0,
            certificate: fingerprint,
        },
    };
    control.store.put_rack(&rack).await?;
    control.note_rack(id, "rack-joined", "has joined").await;
    let ca_pem = control.authority.pem().to_string();
    Ok(ToGateway::Joined { rack: id, certificate_pem: certificate.pem(), ca_pem })
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut queued: mpsc::Receiver<Vec<u8>>,
    mut published: watch::Receiver<Arc<Published>>,
    mut sent: Generation,
) -> Result<()> {
    loop {
        let current = published.borrow_and_update().clone();
        if current.view.generation > sent
            || (current.view.generation < sent && current.view.generation != Generation(0))
        {
            let from = current.earlier(sent).cloned();
            for frame in transfer(from.as_deref(), &current.view)? {
                put(&mut writer, &frame).await?;
            }
            sent = current.view.generation;
        }
        tokio::select! {
            changed = published.changed() => if changed.is_err() { return Ok(()) },
            frame = queued.recv() => match frame {
                Some(frame) => put(&mut writer, &frame).await?,
                None => return Ok(()),
            },
        }
    }
}

async fn put(writer: &mut OwnedWriteHalf, frame: &[u8]) -> Result<()> {
    let time_max = Duration::from_secs(limits::RACK_WRITE_SECONDS_MAX);
    let written = tokio::time::timeout(time_max, writer.write_all(frame)).await;
    written.map_err(|_| Error::Link("the rack does not read".into()))?.map_err(Error::Stream)
}

/// The frames that bring a rack from one view (nothing, if that is not known) to another.
fn transfer(from: Option<&View>, to: &View) -> Result<Vec<Vec<u8>>> {
    let lines = from.map_or_else(|| to.base(), |from| from.delta(to));
    let mut parts = vec![Vec::new()];
    for line in &lines {
        let mut text = Vec::new();
        codec::encode_line(line, &mut text);
        match parts.last_mut() {
            Some(part) if part.len() + text.len() <= FRAME_BYTES_MAX => part.extend_from_slice(&text),
            _ => parts.push(text),
        }
    }
    let count = parts.len();
    let frames = parts.into_iter().enumerate().map(|(index, part)| {
        let message = ToGateway::Snapshot {
            generation: to.generation,
            from: from.map(|view| view.generation),
            first: index == 0,
            last: index + 1 == count,
        };
        let packed = zstd::bulk::compress(&part, 3).map_err(Error::Stream)?;
        Ok(frame::encode(&message, &packed)?)
    });
    frames.collect()
}

async fn read(control: Arc<Control>, mut reader: OwnedReadHalf, rack: RackId, live: Live) -> Result<()> {
    let mut tasks = JoinSet::new();
    let wishes = Arc::new(Semaphore::new(WISHES_IN_FLIGHT_MAX));
    let (batches, batched) = mpsc::channel(limits::OBSERVATION_QUEUE_BATCHES);
    let link = if live.generation == Generation(0) { Link::Empty } else { Link::New };
    tasks.spawn(apply(control.clone(), batched, rack, live.queue.clone(), link));
    let mut held_generation = live.generation;
    loop {
        let frame = tokio::select! {
            frame = frames::read::<ToControl>(&mut reader) => frame?,
            // `read` is dropped here only together with the link.
            Some(ended) = tasks.join_next() => match ended {
                Ok(Ok(())) => return Err(Error::Task),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Error::Task),
            },
        };
        let Some((message, _)) = frame else { return Ok(()) };
        match message {
            ToControl::Status { generation, missing } => {
                control.racks.update(rack, live.link, |live| {
                    live.generation = generation;
                    live.missing = missing.into_iter().collect();
                });
                if generation != held_generation {
                    held_generation = generation;
                    control.store.rack_seen(rack, generation, now()).await?;
                }
            }
            ToControl::Observations { observations } => {
                if observations.len() > OBSERVATIONS_BATCH_MAX {
                    return Err(Error::Link(format!("{} observations in a batch", observations.len())));
                }
                batches.send(observations).await.map_err(|_| Error::Task)?;
            }
            ToControl::Wish { wish } => {
                let slot = wishes.clone().acquire_owned().await.map_err(|_| Error::Task)?;
                let (control, queue) = (control.clone(), live.queue.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    fulfil(&control, wish, &queue).await;
                });
            }
            ToControl::SecretsHeld { operation } => {
                control.racks.update(rack, live.link, |live| {
                    live.held.insert(operation);
                });
            }
            ToControl::SecretsWanted => {
                control.racks.update(rack, live.link, |live| live.held.clear());
                let (control, queue) = (control.clone(), live.queue.clone());
                tokio::spawn(async move {
                    if let Err(error) = push_all_secrets(&control, &queue).await {
                        tracing::warn!(%rack, %error, "secrets cannot be pushed again");
                    }
                });
            }
            ToControl::Join { .. } | ToControl::Hello { .. } => {
                return Err(Error::Link("a rack greets a second time".into()));
            }
        }
    }
}

async fn apply(
    control: Arc<Control>,
    mut batches: mpsc::Receiver<Vec<Observation>>,
    rack: RackId,
    queue: mpsc::Sender<Vec<u8>>,
    mut link: Link,
) -> Result<()> {
    while let Some(mut batch) = batches.recv().await {
        // What has come while the last one was written is written together.
        while batch.len() + OBSERVATIONS_BATCH_MAX <= limits::OBSERVATIONS_COMMIT_MAX {
            let Ok(more) = batches.try_recv() else { break };
            batch.extend(more);
        }
        let through = observe::apply(&control, rack, batch, link).await?;
        if let Some(through) = through {
            link = Link::Settled;
            let frame = frame::encode(&ToGateway::Acknowledged { through }, &[])?;
            queue.send(frame).await.map_err(|_| Error::Task)?;
        }
    }
    // The reader has gone; it says why.
    std::future::pending().await
}

async fn fulfil(control: &Arc<Control>, wish: Wish, queue: &mpsc::Sender<Vec<u8>>) {
    let content = control.content.clone();
    let read = tokio::task::spawn_blocking(move || match wish {
        Wish::Chunk { name } => content.read_chunk(&name),
        Wish::Manifest { digest } => content.manifest(&digest).map(|manifest| manifest.manifest().encode()),
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        failed => {
            let reason = match failed {
                Ok(Err(error)) => error.to_string(),
                _ => Error::Task.to_string(),
            };
            metrics::counter!("bootstorm_wishes_total", "outcome" => "missing").increment(1);
            tracing::warn!(?wish, reason, "a wish cannot be fulfilled");
            if let Ok(frame) = frame::encode(&ToGateway::NotFetched { wish, reason }, &[]) {
                let _ = queue.send(frame).await;
            }
            return;
        }
    };
    metrics::counter!("bootstorm_wishes_total", "outcome" => "sent").increment(1);
    let bytes_total = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let mut offset = 0u64;
    for part in bytes.chunks(FRAME_BLOB_BYTES_MAX) {
        let Ok(frame) = frame::encode(&ToGateway::Fetched { wish, offset, bytes_total }, part) else { return };
        if queue.send(frame).await.is_err() {
            return;
        }
        offset += u64::try_from(part.len()).unwrap_or(u64::MAX);
    }
}

/// The frame that gives a gateway an operation's secrets; `None` if there are none any more.
pub(crate) async fn secrets_frame(control: &Arc<Control>, operation: OperationId) -> Result<Option<Vec<u8>>> {
    let context = SecretContext::OperationUserData(operation);
    let Some(sealed) = control.store.secret(&context).await? else { return Ok(None) };
    let user_data = control.sealer.open(&context.text(), &sealed)?;
    let secrets = Secrets { user_data: Some(Base64(user_data.to_vec())), vendor_data: None };
    let json = zeroize::Zeroizing::new(serde_json::to_vec(&secrets).map_err(frame::FrameError::Header)?);
    Ok(Some(frame::encode(&ToGateway::Secrets { operation }, &json)?))
}

/// Queues an operation's secrets for one rack, waiting for room.
pub(crate) async fn push_secrets(control: &Arc<Control>, rack: &Live, operation: OperationId) -> Result<()> {
    if let Some(frame) = secrets_frame(control, operation).await? {
        let _ = rack.queue.send(frame).await;
    }
    Ok(())
}

async fn push_all_secrets(control: &Arc<Control>, queue: &mpsc::Sender<Vec<u8>>) -> Result<()> {
    let filter = OperationFilter { machine: None, state: Some(OperationState::Running) };
    let mut page = Page::first(bootstorm_store::limits::PAGE_ITEMS_MAX);
    loop {
        let operations = control.store.operations(&filter, &page).await?;
        for operation in &operations {
            if let Some(frame) = secrets_frame(control, operation.id).await?
                && queue.send(frame).await.is_err()
            {
                return Ok(());
            }
        }
        match operations.last() {
            Some(last) if operations.len() >= bootstorm_store::limits::PAGE_ITEMS_MAX as usize => {
                page.after = Some(last.id)
            }
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::record::{Answer, Boot};
    use bootstorm_snapshot::{MachineId, Record};

    #[test]
    fn a_large_view_travels_in_parts_and_arrives_whole() {
        let mut view = View { generation: Generation(9), ..View::default() };
        for n in 0..20_000u64 {
            let machine = MachineId::from_random(n.to_le_bytes());
            let boot =
                Boot { machine, hostname: format!("n{n}"), macs: vec![], architecture: None, answer: Answer::Wait };
            view.put(Record::Boot(boot));
        }
        let frames = transfer(None, &view).expect("frames");
        assert!(frames.len() > 1);
        let mut rebuilt = View::default();
        let mut decoder = frame::Decoder::default();
        for (index, bytes) in frames.iter().enumerate() {
            decoder.feed(bytes);
            let (message, packed) = decoder.poll_frame::<ToGateway>().expect("frame").expect("whole");
            let ToGateway::Snapshot { generation, from, first, last } = message else { panic!("{message:?}") };
            assert_eq!((generation, from, first, last), (Generation(9), None, index == 0, index + 1 == frames.len()));
            let lines = zstd::bulk::decompress(&packed, FRAME_BYTES_MAX).expect("below the limit");
            codec::decode_lines(&lines).expect("lines").into_iter().for_each(|line| rebuilt.apply(line));
        }
        assert_eq!(rebuilt, view);
        let empty = transfer(Some(&view), &View { generation: Generation(10), ..view.clone() }).expect("frames");
        assert_eq!(empty.len(), 1, "a generation without a change is still announced");
    }
}
