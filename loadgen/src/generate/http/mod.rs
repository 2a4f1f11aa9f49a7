//! HTTP/1.1: requests over many connections, one outstanding on each.
//!
//! Requests are octets written before the run begins. A response's head is read strictly (by `proto`'s client half), straight
//! out of the receive buffer where it is whole, and its body is counted to the octet it said. Bodies beyond what comes with
//! the head can be thrown away inside the kernel (`MSG_TRUNC`), which is what a network card's DMA would cost, or copied.
//!
//! In an open loop a request that is due and finds no connection free waits, and its time counts from when it was due.

mod connection;
pub mod text;
pub mod url;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use super::ready::Ready;
use super::{Clock, Error, Outcome, Pace, recorder};
use crate::limits;
use crate::report::Recorder;
use crate::schedule::Sequence;
use connection::{Connection, Job, Progress};

/// What is timed of plain requests.
pub const STAGES: &[&str] = &["connect", "response"];
/// Where connecting stands in every list of stages.
pub const CONNECT: usize = 0;
/// Where plain responses stand.
pub const RESPONSE: usize = 1;

/// Whether a connection serves one request or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// All, until the server closes it.
    Alive,
    /// One.
    Close,
}

/// What happens to bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bodies {
    /// Thrown away inside the kernel.
    Trunc,
    /// Copied, as a program that uses them would.
    Copy,
}

/// A request as octets.
#[derive(Clone)]
pub struct Request {
    /// Head and body.
    pub octets: Vec<u8>,
    /// Under which stage its response is timed.
    pub stage: usize,
    /// How often it is taken, relative to the others.
    pub weight: u32,
    /// What is asked after it, once for each good response.
    pub follow: Option<Follow>,
}

/// Makes a request's octets of a response's body.
pub type Make = dyn Fn(&[u8]) -> Option<Vec<u8>>;

/// A request that is made of a response.
#[derive(Clone)]
pub struct Follow {
    /// Its octets out of the response's body; `None` for a body that does not have what it needs.
    pub make: Rc<Make>,
    /// Under which stage it is timed.
    pub stage: usize,
}

/// What is to be played.
#[derive(Clone)]
pub struct Settings {
    /// The server.
    pub server: SocketAddr,
    /// What is asked; at least one, and not all of no weight.
    pub requests: Vec<Request>,
    /// Names of what is timed; the first is connecting.
    pub stages: &'static [&'static str],
    /// Connections.
    pub connections: u32,
    /// Requests a second by due time; `None` asks again as soon as it is answered.
    pub rate_per_second: Option<f64>,
    /// For how long.
    pub duration: Duration,
    /// Connections and requests.
    pub keep: Keep,
    /// Bodies.
    pub bodies: Bodies,
    /// Time after which a request is lost, and its connection closed.
    pub lost_after: Duration,
    /// Decides which request comes next.
    pub seed: u64,
}

/// Plays it.
pub fn play(settings: &Settings, clock: &mut Clock) -> Result<Outcome, Error> {
    let mut generator = Generator::new(settings)?;
    clock.restart();
    generator.run(clock)?;
    let late = generator.pace.as_ref().map_or(Duration::ZERO, Pace::late);
    let Generator { recorder, started, done, .. } = generator;
    Ok(Outcome { recorder, started, done, wall: clock.now(), late })
}

struct Generator<'a> {
    settings: &'a Settings,
    connections: Vec<Connection>,
    /// Those without a request.
    idle: Vec<u32>,
    ready: Ready,
    pace: Option<Pace>,
    random: Sequence,
    /// The requests with their weights.
    jobs: Vec<(u64, Job)>,
    weights: u64,
    /// Made of responses, not begun yet: at most one for each connection.
    follows: VecDeque<(Vec<u8>, usize)>,
    buffer: Vec<u8>,
    recorder: Recorder,
    started: u64,
    done: u64,
    next_look: Duration,
}

fn job(request: &Request) -> (u64, Job) {
    let Request { octets, stage, weight, follow } = request;
    (u64::from(*weight), Job { octets: octets.as_slice().into(), stage: *stage, follow: follow.clone() })
}

/// Connections are looked through so many times in the time after which a request is lost.
const LOOKS_PER_LOSS: u32 = 8;

impl<'a> Generator<'a> {
    fn new(settings: &'a Settings) -> Result<Generator<'a>, Error> {
        let jobs: Vec<(u64, Job)> = settings.requests.iter().map(job).collect();
        let weights = jobs.iter().map(|(weight, _)| weight).sum();
        if weights == 0 {
            return Err(Error::Settings("there are no requests to make".to_owned()));
        }
        Ok(Generator {
            settings,
            connections: (0..settings.connections).map(|_| Connection::new()).collect(),
            idle: (0..settings.connections).rev().collect(),
            ready: Ready::new()?,
            pace: settings.rate_per_second.map(|rate| Pace::new(rate, settings.duration)),
            random: Sequence::new(settings.seed),
            jobs,
            weights,
            follows: VecDeque::new(),
            buffer: vec![0; limits::STREAM_BUFFER_BYTES],
            recorder: recorder(settings.stages, settings.duration),
            started: 0,
            done: 0,
            next_look: Duration::ZERO,
        })
    }

    fn run(&mut self, clock: &mut Clock) -> Result<(), Error> {
        let mut is_ending = false;
        loop {
            let now = clock.now();
            clock.show(now, &self.recorder);
            is_ending |= clock.is_stopped() || (self.pace.is_none() && now >= self.settings.duration);
            if is_ending && let Some(pace) = &mut self.pace {
                pace.end();
            }
            self.start(clock, is_ending)?;
            let now = clock.now();
            if now >= self.next_look {
                self.expire(now);
                self.next_look = now + self.settings.lost_after / LOOKS_PER_LOSS;
            }
            let next_start = self.pace.as_ref().and_then(Pace::next_due);
            is_ending |= self.pace.is_some() && next_start.is_none();
            if is_ending && self.idle.len() == self.connections.len() && self.follows.is_empty() {
                return Ok(());
            }
            let next_start = next_start.filter(|_| !self.idle.is_empty());
            let next = next_start.into_iter().fold(self.next_look, Duration::min);
            self.ready.wait(Some(next.saturating_sub(now)))?;
            for event in 0..self.ready.count() {
                let index = self.ready.number(event) as usize;
                let progress = self.advance(index, clock)?;
                self.settle(index, progress, clock.now());
                // The next request leaves at once, as long as the connection is warm in the caches.
                self.start_on_idle(clock, is_ending)?;
            }
        }
    }

    fn start(&mut self, clock: &Clock, is_ending: bool) -> Result<(), Error> {
        for _ in 0..limits::BURST_MESSAGES {
            if !self.start_on_idle(clock, is_ending)? {
                break;
            }
        }
        Ok(())
    }

    /// Begins one request if there is one to begin and a connection for it.
    fn start_on_idle(&mut self, clock: &Clock, is_ending: bool) -> Result<bool, Error> {
        let Some(index) = self.idle.last().copied() else { return Ok(false) };
        let now = clock.now();
        if let Some((octets, stage)) = self.follows.pop_front() {
            let job = Job { octets: octets.into(), stage, follow: None };
            return self.begin(index, now, now, job).map(|()| true);
        }
        let due = match &mut self.pace {
            Some(pace) => match pace.take(now) {
                Some((_, due)) => due,
                None => return Ok(false),
            },
            None if is_ending => return Ok(false),
            None => now,
        };
        let job = self.choose();
        self.begin(index, now, due, job).map(|()| true)
    }

    fn begin(&mut self, index: u32, now: Duration, due: Duration, job: Job) -> Result<(), Error> {
        self.idle.pop();
        self.started += 1;
        let connection = &mut self.connections[index as usize];
        let progress = connection.begin(now, due, job, self.settings.server, u64::from(index), &self.ready)?;
        self.settle(index as usize, progress, now);
        Ok(())
    }

    /// One of the requests, by weight.
    fn choose(&mut self) -> Job {
        if self.jobs.len() == 1 {
            return self.jobs[0].1.clone();
        }
        let mut ticket = self.random.next() % self.weights;
        let wins = |(weight, _): &&(u64, Job)| {
            let is_it = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            is_it
        };
        let found = self.jobs.iter().find(wins).unwrap_or(&self.jobs[0]);
        found.1.clone()
    }

    fn advance(&mut self, index: usize, clock: &Clock) -> Result<Progress, Error> {
        let Some(connection) = self.connections.get_mut(index) else { return Ok(Progress::Waiting) };
        let now = clock.now();
        let (progress, received) =
            connection.advance(now, self.settings.bodies, &mut self.buffer, index as u64, &self.ready)?;
        if received > 0 {
            self.recorder.received(now, received);
        }
        if let Some(took) = connection.take_connect_time() {
            self.recorder.timed(CONNECT, took);
        }
        Ok(progress)
    }

    fn settle(&mut self, index: usize, progress: Progress, now: Duration) {
        let connection = &mut self.connections[index];
        let stage = connection.stage();
        match progress {
            Progress::Waiting => return,
            Progress::Done => {
                self.done += 1;
                self.recorder.exchange(now, stage, now.saturating_sub(connection.due()));
                if let Some((follow, body)) = connection.take_followed() {
                    match (follow.make)(&body) {
                        Some(octets) => self.follows.push_back((octets, follow.stage)),
                        None => {
                            self.recorder.failed_exchange(now, follow.stage, "the answer before it lacks what it needs")
                        }
                    }
                }
            }
            Progress::Failed(reason) => self.recorder.failed_exchange(now, stage, &reason.to_string()),
        }
        if self.settings.keep == Keep::Close {
            connection.close();
        }
        self.idle.push(index as u32);
    }

    /// Gives up on what has waited too long.
    fn expire(&mut self, now: Duration) {
        for index in 0..self.connections.len() {
            let connection = &mut self.connections[index];
            if connection.is_lost(now, self.settings.lost_after) {
                connection.close();
                self.settle(index, Progress::Failed(connection::Failure::Lost), now);
            }
        }
    }
}
