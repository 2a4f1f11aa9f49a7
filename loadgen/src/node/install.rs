//! What the agent does: redeems its claim, reports, fetches the image that its plan names, and signals that the system
//! is ready.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bootstorm_api::agent::{self as api, Grant, ReadyRequest};
use bootstorm_api::local::Report;
use bootstorm_proto::http::server::Method;
use bootstorm_snapshot::observation::ReadyResult;
use bootstorm_snapshot::plan::Deploy;
use bootstorm_snapshot::{CredentialHash, Manifest, ManifestDigest, Plan, Task};

use super::image::Download;
use super::transfer::{Purpose, request};
use super::{Ending, Node, Security, Stage};
use crate::agent::{self, CommandLine, Identity};
use crate::reason::Reason;
use crate::script::{Location, Url};
use crate::verify::{Chunks, Sink, Verifier};

/// What an agent knows.
pub(super) struct Install {
    command_line: CommandLine,
    pub(super) identity: Identity,
    deploy: Option<Box<Deploy>>,
    reports: VecDeque<Report>,
    credential: Option<String>,
    sequence: u64,
}

impl Node {
    /// The kernel runs, and with it the agent.
    pub(super) fn redeem(&mut self, now: Duration, line: &str) -> Result<(), Reason> {
        self.enter(now, Stage::Redeem);
        let command_line = CommandLine::parse(line).ok_or(Reason::NoClaim)?;
        let identity = Identity::new()?;
        let body = identity.redeem(&command_line.claim)?;
        self.install = Some(Box::new(Install {
            command_line,
            identity,
            deploy: None,
            reports: VecDeque::new(),
            credential: None,
            sequence: 0,
        }));
        self.post(now, "/v1/redeem", &body, Security::Anonymous, Purpose::Redeem)
    }

    fn install(&mut self) -> Result<&mut Install, Reason> {
        self.install.as_deref_mut().ok_or(Reason::NoClaim)
    }

    pub(super) fn granted(&mut self, now: Duration, body: &[u8]) -> Result<(), Reason> {
        let grant: Grant = serde_json::from_slice(body).map_err(|_| Reason::Answer)?;
        self.install()?.identity.certify(&grant.certificate_pem)?;
        self.work(now, grant.plan)
    }

    fn work(&mut self, now: Duration, plan: Plan) -> Result<(), Reason> {
        let inventory = Box::new(agent::inventory(self.start.mac, self.start.firmware));
        let install = self.install()?;
        install.reports = match plan.task {
            Task::Enlist => [Report::Inventory { inventory }].into(),
            Task::Commission => [Report::Inventory { inventory }, Report::Finished].into(),
            Task::Erase { .. } => [Report::Finished].into(),
            Task::Deploy(deploy) => {
                let target = format!("{}{}", api::MANIFEST_PATH, deploy.manifest);
                let url = Url { server: install.command_line.http, target };
                install.deploy = Some(deploy);
                self.enter(now, Stage::Image);
                return self.fetch(now, &Location::Http(url), Purpose::Manifest);
            }
        };
        self.report_next(now)
    }

    pub(super) fn start_stream(&mut self, now: Duration, manifest: &[u8]) -> Result<(), Reason> {
        let (verifies, mac, sink) = (self.verifies, self.start.mac, self.settings.sink.clone());
        let install = self.install()?;
        let deploy = install.deploy.as_ref().ok_or(Reason::Answer)?;
        if ManifestDigest::of(manifest) != deploy.manifest {
            return Err(Reason::Content);
        }
        let target = format!("{}{}", api::STREAM_PATH, deploy.manifest);
        let url = Url { server: install.command_line.http, target };
        let manifest = Manifest::decode(manifest).map_err(|_| Reason::Content)?;
        let verifier = match verifies {
            true => Some(Box::new(Verifier::Chunks(Box::new(Chunks::new(&manifest, Sink::open(&sink, mac)?)?)))),
            false => None,
        };
        self.download = Some(Box::new(Download::new(url, Some(manifest.stored_bytes()), verifier)));
        self.download_next(now)
    }

    /// The image is on the disk, so to speak.
    pub(super) fn written(&mut self, now: Duration) -> Result<(), Reason> {
        let credential = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        let install = self.install()?;
        install.reports = [Report::Written { credential: CredentialHash::of(credential.as_bytes()) }].into();
        install.credential = Some(credential);
        self.report_next(now)
    }

    pub(super) fn report_next(&mut self, now: Duration) -> Result<(), Reason> {
        let install = self.install()?;
        match install.reports.pop_front() {
            Some(report) => {
                install.sequence += 1;
                let body = agent::report(install.sequence, report)?;
                self.enter(now, Stage::Report);
                self.post(now, "/v1/report", &body, Security::Certified, Purpose::Report)
            }
            None => match install.credential.take() {
                Some(credential) => self.ready(now, &credential),
                None => {
                    self.end(now, Ending::Done);
                    Ok(())
                }
            },
        }
    }

    /// The installed system's signal.
    fn ready(&mut self, now: Duration, credential: &str) -> Result<(), Reason> {
        self.enter(now, Stage::PhoneHome);
        let result = ReadyResult { warnings: Vec::new(), datasource: Some("DataSourceNoCloud".to_owned()) };
        let body = serde_json::to_vec(&ReadyRequest { result }).map_err(|_| Reason::Answer)?;
        let rack = self.rack()?;
        let bytes = agent::post(rack, "/v1/ready", Some(credential), agent::JSON, &body);
        self.send(now, request(Purpose::Ready, rack, Security::Anonymous, Method::Get, bytes))
    }

    fn rack(&mut self) -> Result<SocketAddr, Reason> {
        Ok(self.install()?.command_line.rack)
    }

    fn post(
        &mut self,
        now: Duration,
        path: &str,
        body: &[u8],
        security: Security,
        purpose: Purpose,
    ) -> Result<(), Reason> {
        let rack = self.rack()?;
        let bytes = agent::post(rack, path, None, agent::JSON, body);
        self.send(now, request(purpose, rack, security, Method::Get, bytes))
    }
}
