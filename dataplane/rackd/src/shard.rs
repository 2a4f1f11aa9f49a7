//! The loop of one shard: completions, mail and timers in, operations out. Shard 0 has the engine too.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Instant;

use bootstorm_api::role::{self, RackInterface};
use bootstorm_driver::{Choice, Completion, Config, Driver, Event, Waker};
use bootstorm_engine::Engine;
use bootstorm_engine::dns::Responder;
use bootstorm_journal::JournalThread;

use crate::brain::{Brain, JournalNews, Link};
use crate::core::{Core, Kind, Shared, parse_token};
use crate::dns::Dns;
use crate::http::Http;
use crate::mail::{Ask, Mail, Mailbox};
use crate::outbox::Outbox;
use crate::stop::Stop;
use crate::tftp::Tftp;
use crate::{Error, limits};

/// The sockets of one shard.
#[derive(Default)]
pub(crate) struct Sockets {
    pub(crate) http: Vec<OwnedFd>,
    pub(crate) tftp: Vec<OwnedFd>,
    pub(crate) dns: Vec<OwnedFd>,
    /// Shard 0 only.
    pub(crate) links: Vec<LinkSockets>,
}

/// Shard 0's sockets of one interface.
pub(crate) struct LinkSockets {
    pub(crate) interface: RackInterface,
    pub(crate) dhcp: Option<OwnedFd>,
    pub(crate) packet: Option<OwnedFd>,
    pub(crate) icmp6: Option<OwnedFd>,
}

/// The engine and its journal, on their way to shard 0.
pub(crate) struct BrainParts {
    pub(crate) engine: Engine,
    pub(crate) journal: JournalThread,
    pub(crate) news: Arc<JournalNews>,
    pub(crate) outbox: Arc<Outbox>,
}

/// What a shard gets once all shards have a driver.
pub(crate) struct Begin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) reader: SyncSender<Ask>,
    pub(crate) brain: Option<BrainParts>,
}

/// A shard's thread that has a driver and waits for the rest.
pub(crate) struct Waiting {
    pub(crate) mailbox: Mailbox,
    pub(crate) begin: SyncSender<Begin>,
    pub(crate) thread: JoinHandle<Result<(), Error>>,
}

/// Starts the thread of a shard. Its driver belongs to that thread, so it is made there.
pub(crate) fn spawn(shard: usize, sockets: Sockets, choice: role::Driver, stop: Stop) -> Result<Waiting, Error> {
    let (waker_sender, waker) = sync_channel::<Waker>(1);
    let (begin, begun) = sync_channel::<Begin>(1);
    let (sender, inbox) = sync_channel::<Mail>(limits::SHARD_MAIL_MAX);
    let work = move || {
        let outcome = run(shard, sockets, choice, &stop, inbox, waker_sender, begun);
        // One shard that ends takes the role with it.
        stop.trigger();
        outcome
    };
    let builder = std::thread::Builder::new().name(format!("shard-{shard}"));
    let thread = builder.spawn(work).map_err(Error::system("starting a shard"))?;
    match waker.recv() {
        Ok(waker) => Ok(Waiting { mailbox: Mailbox { sender, waker }, begin, thread }),
        Err(_) => Err(join(thread).err().unwrap_or(Error::Panicked(format!("shard-{shard}")))),
    }
}

/// Waits for a shard's end.
pub(crate) fn join(thread: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    let name = thread.thread().name().unwrap_or_default().to_string();
    thread.join().unwrap_or(Err(Error::Panicked(name)))
}

fn run(
    shard: usize,
    sockets: Sockets,
    choice: role::Driver,
    stop: &Stop,
    inbox: Receiver<Mail>,
    waker: SyncSender<Waker>,
    begun: Receiver<Begin>,
) -> Result<(), Error> {
    let choice = match choice {
        role::Driver::Auto => Choice::Auto,
        role::Driver::Uring => Choice::Uring,
        role::Driver::Epoll => Choice::Epoll,
    };
    let config = Config {
        in_flight_max: limits::IN_FLIGHT_MAX,
        sockets_max: limits::SOCKETS_MAX,
        connections_max: limits::CONNECTIONS_MAX,
        choice,
        ..Config::default()
    };
    let mut driver = Driver::new(&config)?;
    stop.register(driver.waker());
    let mut listeners = Vec::new();
    for fd in sockets.http {
        listeners.push(driver.add_listener(fd)?);
    }
    let mut requests = Vec::new();
    for fd in sockets.tftp {
        requests.push(driver.add_socket(fd)?);
    }
    let mut questions = Vec::new();
    for fd in sockets.dns {
        questions.push(driver.add_socket(fd)?);
    }
    let mut links = Vec::new();
    for link in sockets.links {
        let mut add = |fd: Option<OwnedFd>| fd.map(|fd| driver.add_socket(fd)).transpose();
        let (dhcp, packet, icmp6) = (add(link.dhcp)?, add(link.packet)?, add(link.icmp6)?);
        links.push(Link { interface: link.interface, dhcp, packet, icmp6 });
    }
    // If nobody takes it the role has failed to start, and `begun` says so.
    let _ = waker.send(driver.waker());
    let Ok(begin) = begun.recv() else { return Ok(()) };
    let mut core = Core::new(driver, begin.shared, begin.mailboxes, begin.reader, shard);
    let mut http = Http::new();
    let mut tftp = Tftp::new();
    let mut dns = Dns::new(Responder::new(core.shared.dns_secret, core.shared.dns_rates));
    listeners.into_iter().for_each(|listener| http.listen(&mut core, listener));
    requests.into_iter().for_each(|socket| tftp.listen(&mut core, socket));
    questions.into_iter().for_each(|socket| dns.listen(&mut core, socket));
    let brain = begin.brain.map(|parts| {
        let mut brain = Brain::new(parts.engine, parts.journal, parts.news, parts.outbox, links);
        brain.listen(&mut core);
        brain
    });
    core.shared.metrics.shard_serves(core.driver.backend_name());
    tracing::info!(shard, driver = core.driver.backend_name(), "shard serves");
    Shard { core, http, tftp, dns, brain, inbox }.run(stop)
}

struct Shard {
    core: Core,
    http: Http,
    tftp: Tftp,
    dns: Dns,
    brain: Option<Brain>,
    inbox: Receiver<Mail>,
}

impl Shard {
    fn run(mut self, stop: &Stop) -> Result<(), Error> {
        let mut completions = Vec::new();
        let mut stopping: Option<Instant> = None;
        loop {
            self.take_local()?;
            if let Some(brain) = &mut self.brain {
                brain.turn(&mut self.core)?;
            }
            if stopping.is_none() && stop.is_triggered() {
                stopping = Some(self.core.now + limits::STOP_DEADLINE);
                self.http.stop(&mut self.core);
                self.tftp.stop(&mut self.core);
                self.dns.stop(&mut self.core);
                if let Some(brain) = &mut self.brain {
                    brain.stop(&mut self.core);
                }
            }
            if stopping.is_some_and(|by| by <= self.core.now || (self.http.is_idle() && self.tftp.is_idle())) {
                break;
            }
            let due = self.brain.as_ref().and_then(|brain| brain.next_timeout(&self.core));
            let due = [due, self.core.next_timer(), stopping].into_iter().flatten().min();
            let due = if self.core.local.is_empty() { due } else { Some(self.core.now) };
            self.core.driver.wait(due, &mut completions)?;
            self.core.tick();
            for completion in completions.drain(..) {
                self.complete(completion);
            }
            // Mail that comes while this is handled has woken the driver again.
            for _ in 0..limits::SHARD_MAIL_MAX {
                let Ok(mail) = self.inbox.try_recv() else { break };
                self.take(mail)?;
            }
            while let Some(token) = self.core.pop_timer() {
                self.time_out(token);
            }
        }
        if let Some(brain) = self.brain {
            brain.close(&self.core);
        }
        Ok(())
    }

    /// Mail of this shard to itself: what has gathered so far, since handling it may make more.
    fn take_local(&mut self) -> Result<(), Error> {
        let gathered: VecDeque<Mail> = std::mem::take(&mut self.core.local);
        gathered.into_iter().try_for_each(|mail| self.take(mail))
    }

    fn take(&mut self, mail: Mail) -> Result<(), Error> {
        let core = &mut self.core;
        match mail {
            Mail::Manifest { token, outcome } => match parse_token(token) {
                Some((Kind::Request, key)) => self.http.handle_manifest(core, key, outcome),
                Some((Kind::TftpRead, key)) => self.tftp.handle_manifest(core, key, outcome),
                _ => {}
            },
            Mail::Bytes { token, outcome } => {
                if let Some((Kind::Request, key)) = parse_token(token) {
                    self.http.handle_bytes(core, key, outcome);
                }
            }
            Mail::Chunks { tokens, outcome } => {
                for token in tokens {
                    match parse_token(token) {
                        Some((Kind::HttpRead, key)) => self.http.handle_chunks(core, key, outcome),
                        Some((Kind::TftpRead, key)) => self.tftp.handle_chunks(core, key, outcome),
                        _ => {}
                    }
                }
            }
            Mail::Script { token, text } => match parse_token(token) {
                Some((Kind::Request, key)) => self.http.handle_script(core, key, text),
                Some((Kind::TftpRead, key)) => self.tftp.handle_script(core, key, text),
                _ => {}
            },
            mail @ (Mail::AskScript(_) | Mail::Fetched { .. } | Mail::Gateway { .. } | Mail::Index(_)) => {
                if let Some(brain) = &mut self.brain {
                    brain.handle_mail(core, mail)?;
                }
            }
        }
        Ok(())
    }

    fn complete(&mut self, completion: Completion) {
        let Some((kind, key)) = parse_token(completion.token) else { return };
        let core = &mut self.core;
        let event = completion.event;
        match kind {
            Kind::Accept => self.http.handle_accepted(core, event),
            Kind::HttpReceive => self.http.handle_received(core, key, event),
            Kind::HttpSend => self.http.handle_sent(core, key, event),
            Kind::Dns => self.dns.handle_received(core, key, event),
            Kind::TftpReceive => self.tftp.handle_received(core, key, event),
            Kind::SentSegments => self.tftp.handle_sent_segments(&event),
            Kind::Dhcp => {
                if let Some(brain) = &mut self.brain {
                    brain.handle_dhcp(core, key, event);
                }
            }
            Kind::Solicitation => {
                if let Some(brain) = &mut self.brain {
                    brain.handle_solicitation(core, key, event);
                }
            }
            Kind::Sent => {
                if let Event::Failed(error) = event {
                    core.shared.metrics.dropped("driver", "send_failed");
                    tracing::debug!(%error, "a datagram could not be sent");
                }
            }
            // Timers and mail, not operations.
            Kind::HttpRead | Kind::TftpRead | Kind::Request => {}
        }
    }

    fn time_out(&mut self, token: u64) {
        match parse_token(token) {
            Some((Kind::Request, key)) => self.http.handle_timeout(&mut self.core, key),
            Some((Kind::TftpRead, key)) => self.tftp.handle_timeout(&mut self.core, key),
            _ => {}
        }
    }
}
