//! A control role in a directory of its own, with a rack, a bmc role and a client that do as the test says.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bootstorm_api::bmc::{Action, Command, PowerFailure, PowerState, Reply};
use bootstorm_api::link::{ToControl, ToGateway};
use bootstorm_api::local::Wish;
use bootstorm_api::role::{ControlConfig, EnlistThen, RackInterface};
use bootstorm_model::{BootEnvironment, Image, ImageState, Timestamp};
use bootstorm_snapshot::inventory::{Cpu, Disk, Dmi, Firmware, Interface, Inventory};
use bootstorm_snapshot::limits::FRAME_BYTES_MAX;
use bootstorm_snapshot::record::{Answer, Environment, File};
use bootstorm_snapshot::{
    Architecture, AttemptId, Encoding, EnrolmentId, Generation, ImageId, Mac, MachineId, ManifestDigest, Observation,
    Observed, OperationId, RackId, Stage, Subject, View, codec,
};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use crate::{ControlOptions, Running, frames};

/// Longest that anything in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A directory that goes with the test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Arc<Self> {
        let name = u64::from_le_bytes(crate::seal::random::<8>().expect("random"));
        let path = std::env::temp_dir().join(format!("bootstorm-controld-{name:016x}"));
        std::fs::create_dir_all(&path).expect("a directory");
        Arc::new(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the bmc double was told, and what it answers.
#[derive(Clone, Default)]
pub struct Bmc {
    pub commands: Arc<Mutex<Vec<(String, Action)>>>,
    pub failure: Arc<Mutex<Option<PowerFailure>>>,
}

impl Bmc {
    async fn serve(self, stream: std::os::unix::net::UnixStream) {
        let (mut reader, mut writer) = crate::bmc::to_tokio(stream).expect("stream").into_split();
        while let Ok(Some((command, sealed))) = frames::read::<Command>(&mut reader).await {
            assert!(!sealed.is_empty(), "parameters come sealed");
            assert!(!sealed.windows(4).any(|window| window == b"http"), "parameters come sealed");
            self.commands.lock().expect("lock").push((command.context.clone(), command.action));
            let failure = self.failure.lock().expect("lock").clone();
            let result = match failure {
                Some(failure) => Err(failure),
                None if command.action == Action::Off => Ok(PowerState::Off),
                None => Ok(PowerState::On),
            };
            let _ = frames::write(&mut writer, &Reply { number: command.number, result }, &[]).await;
        }
    }

    pub fn actions(&self) -> Vec<Action> {
        self.commands.lock().expect("lock").iter().map(|(_, action)| *action).collect()
    }
}

/// A control role that runs, and a client of it.
pub struct Site {
    pub directory: Arc<Directory>,
    pub control: Arc<crate::control::Control>,
    pub bmc: Bmc,
    pub base: String,
    pub token: String,
    client: reqwest::Client,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Site {
    pub async fn start() -> Self {
        Self::start_in(Directory::new(), EnlistThen::Wait).await
    }

    pub async fn start_in(directory: Arc<Directory>, enlist_then: EnlistThen) -> Self {
        let data = directory.path().to_path_buf();
        let config = ControlConfig {
            racks_socket: data.join("racks.sock"),
            data: data.clone(),
            api_listen: "127.0.0.1:0".parse().expect("address"),
            enlist_then,
            fetch_allow: Vec::new(),
            upload_bytes_max: 8 << 20,
        };
        let options = ControlOptions { importer: crate::Importer::Thread, grace: Duration::ZERO };
        let (streams, received) = mpsc::channel(4);
        let running = Running::start(config, options, received).await.expect("a control role");
        let bmc = Bmc::default();
        let (near, far) = std::os::unix::net::UnixStream::pair().expect("a pair");
        streams.send(near).await.expect("taken");
        tokio::spawn(bmc.clone().serve(far));
        let base = format!("http://{}", running.listener.local_addr().expect("address"));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let control = running.control.clone();
        let task = tokio::spawn(async move {
            let _streams = streams;
            let Running { control, store, listener, mut tasks } = running;
            crate::http::serve(control, listener, async {
                let _ = stopped.await;
            })
            .await
            .expect("served");
            tasks.shutdown().await;
            store.close().await;
        });
        let token = std::fs::read_to_string(data.join("admin.token")).expect("a token").trim().to_string();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self { directory, control, bmc, base, token, client, stop: Some(stop), task }
    }

    /// Stops the role and everything it has begun, as the end of its process does.
    pub async fn stop(mut self) -> Arc<Directory> {
        let _ = self.stop.take().expect("running").send(());
        let directory = self.directory.clone();
        (&mut self.task).await.expect("ended");
        // The content store is held until its last user is gone.
        let Self { control, .. } = self;
        let mut left = control;
        while let Err(shared) = Arc::try_unwrap(left) {
            left = shared;
            tokio::task::yield_now().await;
        }
        directory
    }

    pub async fn send(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| body.to_string().into_bytes());
        self.send_with(method, path, body, &[]).await
    }

    pub async fn send_with(
        &self,
        method: &str,
        path: &str,
        body: Option<Vec<u8>>,
        headers: &[(&str, &str)],
    ) -> (u16, Value) {
        let url = format!("{}/api/v1{path}", self.base);
        let mut request = self.client.request(method.parse().expect("method"), url).bearer_auth(&self.token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = tokio::time::timeout(PATIENCE * 3, request.send()).await.expect("in time").expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.send("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value, expected: u16) -> Value {
        let (status, answer) = self.send("POST", path, Some(body)).await;
        assert_eq!(status, expected, "{path}: {answer}");
        answer
    }

    /// Waits until what a path shows fits.
    pub async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let mut changed = self.control.subscribe();
        let wait = async {
            loop {
                changed.borrow_and_update();
                let value = self.get(path).await;
                if fits(&value) {
                    return value;
                }
                changed.changed().await.expect("running");
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(value) => value,
            Err(_) => {
                let events = self.get("/events?limit=1000").await;
                panic!("{path} does not come to fit: {}\nevents: {events:#}", self.get(path).await)
            }
        }
    }

    pub async fn until_state(&self, machine: &str, state: &str) -> Value {
        self.until(&format!("/machines/{machine}"), |machine| machine["state"] == state).await
    }

    pub async fn until_stage(&self, operation: &str, stage: &str) -> Value {
        self.until(&format!("/operations/{operation}"), |operation| operation["stage"] == stage).await
    }

    /// An image and a boot environment that exist only as records.
    pub async fn furnish(&self) {
        let image = Image {
            name: "debian-12".parse().expect("name"),
            id: ImageId::of(b"debian"),
            manifest: manifest(b"image"),
            raw_bytes: 2 << 30,
            stored_bytes: 1 << 29,
            encoding: Encoding::Zstd,
            architecture: Some(Architecture::Amd64),
            state: ImageState::Ready,
            created: Timestamp(1),
        };
        self.control.store.put_image(&image).await.expect("stored");
        let environment = Environment {
            architecture: Architecture::Amd64,
            version: "1".into(),
            kernel: file("6.1.0"),
            initrd: file("initrd"),
            command_line: vec![],
            loaders: vec![file("snponly.efi")],
        };
        let environment = BootEnvironment { environment, created: Timestamp(1) };
        self.control.store.put_boot_environment(&environment).await.expect("stored");
        self.control.touch();
    }

    /// A machine with a webhook, commissioned and ready, by way of its rack.
    pub async fn ready_machine(&self, rack: &mut Rack, n: u8) -> MachineId {
        let request = serde_json::json!({
            "name": format!("n{n:03}"), "macs": [mac(n).to_string()], "architecture": "amd64",
            "power": { "driver": "webhook", "parameters": webhook() },
        });
        let machine = self.post("/machines", request, 201).await["id"].as_str().expect("id").to_string();
        let operation = self.post(&format!("/machines/{machine}/commission"), serde_json::json!({}), 202).await;
        let operation = operation["id"].as_str().expect("id").to_string();
        let subject = rack.attempt(machine.parse().expect("id"), &operation).await;
        self.until_stage(&operation, "power").await;
        rack.observe(Observed::Inventory { subject, inventory: Box::new(inventory(n)) }).await;
        rack.observe(Observed::Finished { subject }).await;
        self.until(&format!("/machines/{machine}"), |machine| {
            machine["state"] == "Ready" && machine["power_state"] == "off"
        })
        .await;
        machine.parse().expect("id")
    }
}

pub fn webhook() -> BTreeMap<String, String> {
    ["on", "off", "query"].iter().map(|verb| (format!("power_{verb}_uri"), format!("http://10.9.9.9/{verb}"))).collect()
}

pub fn mac(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

pub fn manifest(of: &[u8]) -> ManifestDigest {
    ManifestDigest::of(of)
}

fn file(name: &str) -> File {
    let raw = ImageId::of(name.as_bytes());
    File { name: name.into(), manifest: manifest(name.as_bytes()), raw, raw_bytes: 1000, encoding: Encoding::Plain }
}

pub fn inventory(n: u8) -> Inventory {
    let disk = |name: &str, bytes: u64| Disk {
        name: name.into(),
        bytes,
        block_bytes: 512,
        rotational: false,
        read_only: false,
        removable: false,
        model: None,
        serial: Some(format!("serial-{name}")),
        wwn: None,
    };
    Inventory {
        architecture: Architecture::Amd64,
        firmware: Firmware::Uefi,
        cpu: Cpu { model: "cpu".into(), sockets: 1, cores: 4, threads: 8 },
        memory_bytes: 16 << 30,
        disks: vec![disk("vda", 10 << 30), disk("vdb", 1 << 20)],
        interfaces: vec![Interface {
            name: "enp1s0".into(),
            mac: mac(n),
            link_up: true,
            speed_mbit: Some(1000),
            driver: None,
            pci: None,
            boot: true,
        }],
        dmi: Dmi { system_uuid: Some(format!("4c4c4544-0042-3010-8052-b4c04f4e31{n:02x}")), ..Dmi::default() },
        pci: vec![],
        agent_version: "0.1.0".into(),
        kernel: "6.1.0".into(),
    }
}

/// A rack and its gateway on the unix socket.
pub struct Rack {
    pub id: RackId,
    pub view: View,
    pub secrets: BTreeMap<OperationId, Vec<u8>>,
    pub forgotten: Vec<OperationId>,
    pub acknowledged: u64,
    pub fetched: Vec<(Wish, Vec<u8>)>,
    pub not_fetched: Vec<Wish>,
    /// Whether it says that it serves what it is sent.
    pub serves: bool,
    /// Whether it says that it holds the secrets it is sent.
    pub holds: bool,
    pub missing: Vec<ManifestDigest>,
    pub sequence: u64,
    received: mpsc::Receiver<(ToGateway, Vec<u8>)>,
    writer: OwnedWriteHalf,
    pending: Vec<u8>,
}

impl Rack {
    /// Joins and greets.
    pub async fn join(site: &Site, name: &str) -> Self {
        let stream = UnixStream::connect(site.directory.path().join("racks.sock")).await.expect("connected");
        let (mut reader, mut writer) = stream.into_split();
        let key = rcgen::KeyPair::generate().expect("key");
        let csr_pem = rcgen::CertificateParams::default().serialize_request(&key).expect("csr").pem().expect("pem");
        let join = ToControl::Join { token: None, name: name.into(), csr_pem, addresses: vec![address()] };
        frames::write(&mut writer, &join, &[]).await.expect("sent");
        let joined = frames::read::<ToGateway>(&mut reader).await.expect("read").expect("an answer").0;
        let ToGateway::Joined { rack, certificate_pem, ca_pem } = joined else { panic!("{joined:?}") };
        assert_eq!(ca_pem, site.control.authority.pem());
        assert!(certificate_pem.contains("CERTIFICATE"));
        Self::hello(reader, writer, rack, View::default(), 0).await
    }

    /// A rack comes back with what it has kept.
    pub async fn reconnect(site: &Site, id: RackId, view: View, sequence: u64) -> Self {
        let stream = UnixStream::connect(site.directory.path().join("racks.sock")).await.expect("connected");
        let (reader, writer) = stream.into_split();
        Self::hello(reader, writer, id, view, sequence).await
    }

    async fn hello(
        mut reader: OwnedReadHalf,
        mut writer: OwnedWriteHalf,
        id: RackId,
        view: View,
        sequence: u64,
    ) -> Self {
        let interface = RackInterface {
            name: "eth1".into(),
            index: 2,
            mac: mac(250),
            address: address(),
            prefix_bits: 24,
            mtu: 1500,
        };
        let hello = ToControl::Hello {
            rack: id,
            version: "0.1.0".into(),
            interfaces: vec![interface],
            generation: view.generation,
        };
        frames::write(&mut writer, &hello, &[]).await.expect("sent");
        frames::write(&mut writer, &ToControl::Status { generation: view.generation, missing: vec![] }, &[])
            .await
            .expect("sent");
        frames::write(&mut writer, &ToControl::SecretsWanted, &[]).await.expect("sent");
        let (sender, received) = mpsc::channel(64);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames::read::<ToGateway>(&mut reader).await {
                if sender.send(frame).await.is_err() {
                    return;
                }
            }
        });
        Self {
            id,
            view,
            secrets: BTreeMap::new(),
            forgotten: Vec::new(),
            acknowledged: 0,
            fetched: Vec::new(),
            not_fetched: Vec::new(),
            serves: true,
            holds: true,
            missing: Vec::new(),
            sequence,
            received,
            writer,
            pending: Vec::new(),
        }
    }

    pub async fn say(&mut self, message: &ToControl) {
        frames::write(&mut self.writer, message, &[]).await.expect("sent");
    }

    pub async fn tell_status(&mut self) {
        let status = ToControl::Status { generation: self.view.generation, missing: self.missing.clone() };
        self.say(&status).await;
    }

    /// Takes one message of control and does what a rack does about it. False if the link has ended.
    pub async fn step(&mut self) -> bool {
        let Some((message, attachment)) = self.received.recv().await else { return false };
        match message {
            ToGateway::Snapshot { generation, from, first, last } => {
                if first {
                    self.pending.clear();
                    match from {
                        None => self.view = View::default(),
                        Some(from) => assert_eq!(from, self.view.generation, "a delta starts from what the rack has"),
                    }
                }
                let lines = zstd::bulk::decompress(&attachment, FRAME_BYTES_MAX).expect("below the limit");
                self.pending.extend_from_slice(&lines);
                if last {
                    for line in codec::decode_lines(&self.pending).expect("lines") {
                        self.view.apply(line);
                    }
                    self.view.generation = generation;
                    if self.serves {
                        self.tell_status().await;
                    }
                }
            }
            ToGateway::Acknowledged { through } => self.acknowledged = through,
            ToGateway::Secrets { operation } => {
                self.secrets.insert(operation, attachment);
                if self.holds {
                    self.say(&ToControl::SecretsHeld { operation }).await;
                }
            }
            ToGateway::ForgetSecrets { operation } => {
                self.secrets.remove(&operation);
                self.forgotten.push(operation);
            }
            ToGateway::Fetched { wish, .. } => self.fetched.push((wish, attachment)),
            ToGateway::NotFetched { wish, .. } => self.not_fetched.push(wish),
            other @ (ToGateway::Joined { .. } | ToGateway::Refused { .. }) => panic!("{other:?}"),
        }
        true
    }

    /// Takes messages until something is so.
    pub async fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !so(self) {
                assert!(self.step().await, "the link has ended before {what}");
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            panic!("not in time: {what}");
        }
    }

    /// Goes on taking messages while the future runs.
    pub async fn during<T>(&mut self, future: impl Future<Output = T>) -> T {
        tokio::pin!(future);
        loop {
            tokio::select! {
                value = &mut future => return value,
                alive = self.step() => assert!(alive, "the link has ended"),
            }
        }
    }

    /// The attempt that a machine's boot answer names for an operation, once it does.
    pub async fn attempt(&mut self, machine: MachineId, of: &str) -> Subject {
        let of: Option<OperationId> = of.parse().ok();
        let agent = |rack: &Self| match rack.view.boots.get(&machine).map(|boot| boot.answer) {
            Some(Answer::Agent { operation, attempt }) if of.is_none_or(|of| of == operation) => {
                Some((operation, attempt))
            }
            _ => None,
        };
        self.until("a boot answer with an agent", |rack| agent(rack).is_some()).await;
        let (operation, attempt): (OperationId, AttemptId) = agent(self).expect("just seen");
        Subject::Attempt { machine, operation, attempt }
    }

    /// Observes something and waits for the acknowledgement.
    pub async fn observe(&mut self, observed: Observed) {
        self.sequence += 1;
        let sequence = self.sequence;
        let observation = Observation { sequence, unix_micros: 1_800_000_000_000_000 + sequence, observed };
        self.say(&ToControl::Observations { observations: vec![observation] }).await;
        self.until("an acknowledgement", |rack| rack.acknowledged >= sequence).await;
    }

    pub async fn stages(&mut self, subject: Subject, stages: &[Stage]) {
        for stage in stages {
            self.observe(Observed::Stage { subject, stage: *stage, progress: None, detail: String::new() }).await;
        }
    }

    pub fn enlisted(n: u8) -> (EnrolmentId, Observed) {
        let enrolment = EnrolmentId::new(u64::from(n), [n; 10]);
        (enrolment, Observed::Enlisted { enrolment, mac: mac(n), inventory: Box::new(inventory(n)) })
    }

    pub fn generation(&self) -> Generation {
        self.view.generation
    }
}

pub fn address() -> std::net::Ipv4Addr {
    std::net::Ipv4Addr::new(10, 7, 0, 1)
}
