//! TFTP: many clients that read one file again and again, each read from a port of its own.
//!
//! The protocol is `proto`'s client half. With receive coalescing (`UDP_GRO`) the kernel hands over a burst of a window in one
//! piece, as a network card that segments would: its blocks are all of the agreed size but the last, so they are told apart
//! without asking the kernel. File octets are counted and thrown away.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

use bootstorm_driver::socket;
use bootstorm_proto::tftp::client::{Client, Output};
use bootstorm_proto::tftp::wire::{Options, ReadRequest};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recvfrom, sendto};

use super::ready::{Interest, Ready};
use super::{Clock, Error, Outcome, Pace, recorder};
use crate::limits;
use crate::report::Recorder;

/// What is timed.
pub const STAGES: &[&str] = &["first-block", "transfer"];
const FIRST_BLOCK: usize = 0;
const TRANSFER: usize = 1;

/// Whether the kernel may join datagrams of one burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coalescing {
    /// It may (`UDP_GRO`).
    On,
    /// Each datagram comes alone.
    Off,
}

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server's port for first requests.
    pub server: SocketAddr,
    /// The file's name.
    pub file: String,
    /// Clients; each has one transfer at a time.
    pub clients: u32,
    /// `windowsize`; 1 is not asked for.
    pub window_blocks: u16,
    /// `blksize`.
    pub block_bytes: u16,
    /// Receive coalescing.
    pub coalescing: Coalescing,
    /// Transfers a second by due time; `None` begins the next when one has ended.
    pub rate_per_second: Option<f64>,
    /// For how long transfers are begun.
    pub duration: Duration,
    /// Time before a packet is sent again.
    pub timeout: Duration,
}

/// A client and its transfer.
struct Seat {
    transfer: Option<(UdpSocket, Client)>,
    due: Duration,
    has_first: bool,
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
    seats: Vec<Seat>,
    idle: Vec<u32>,
    ready: Ready,
    pace: Option<Pace>,
    buffer: Vec<u8>,
    recorder: Recorder,
    started: u64,
    done: u64,
    next_look: Duration,
}

impl<'a> Generator<'a> {
    fn new(settings: &'a Settings) -> Result<Generator<'a>, Error> {
        Ok(Generator {
            settings,
            seats: (0..settings.clients)
                .map(|_| Seat { transfer: None, due: Duration::ZERO, has_first: false })
                .collect(),
            idle: (0..settings.clients).rev().collect(),
            ready: Ready::new()?,
            pace: settings.rate_per_second.map(|rate| Pace::new(rate, settings.duration)),
            buffer: vec![0; limits::DATAGRAM_BYTES_MAX],
            recorder: recorder(STAGES, settings.duration),
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
            for _ in 0..limits::BURST_MESSAGES {
                if !self.start(clock.now(), is_ending)? {
                    break;
                }
            }
            if now >= self.next_look {
                self.fire_timers(now)?;
                self.next_look = now + TIMER_TICK.min(self.settings.timeout);
            }
            let next_start = self.pace.as_ref().and_then(Pace::next_due);
            is_ending |= self.pace.is_some() && next_start.is_none();
            if is_ending && (self.idle.len() == self.seats.len() || clock.is_stopped()) {
                return Ok(());
            }
            let next_start = next_start.filter(|_| !self.idle.is_empty());
            let next = next_start.into_iter().fold(self.next_look, Duration::min);
            self.ready.wait(Some(next.saturating_sub(clock.now())))?;
            for event in 0..self.ready.count() {
                self.receive(self.ready.number(event) as usize, clock)?;
            }
        }
    }

    /// Begins a transfer if one is due and a client is free.
    fn start(&mut self, now: Duration, is_ending: bool) -> Result<bool, Error> {
        let Some(index) = self.idle.last().copied() else { return Ok(false) };
        let due = match &mut self.pace {
            Some(pace) => match pace.take(now) {
                Some((_, due)) => due,
                None => return Ok(false),
            },
            None if is_ending => return Ok(false),
            None => now,
        };
        self.idle.pop();
        self.started += 1;
        let options = Options {
            block_bytes: (self.settings.block_bytes != bootstorm_proto::limits::TFTP_BLOCK_BYTES_DEFAULT)
                .then_some(self.settings.block_bytes),
            window_blocks: (self.settings.window_blocks > 1).then_some(self.settings.window_blocks),
            timeout_seconds: None,
            transfer_bytes: Some(0),
        };
        let request = ReadRequest { name: &self.settings.file, options };
        // A port of its own tells the blocks of this transfer from late ones of the last (RFC 1350 §4).
        let socket = self.socket()?;
        self.ready.add(&socket, u64::from(index), Interest::Read)?;
        let client = Client::new(now, self.settings.server, &request, self.settings.timeout);
        self.seats[index as usize] = Seat { transfer: Some((socket, client)), due, has_first: false };
        self.settle(index as usize, now)?;
        Ok(true)
    }

    fn socket(&self) -> Result<UdpSocket, Error> {
        let local = if self.settings.server.is_ipv4() { ([0; 4], 0).into() } else { SocketAddr::from(([0u16; 8], 0)) };
        let told = |source| Error::Socket { what: "making a UDP socket", source };
        let socket = UdpSocket::bind(local).map_err(told)?;
        if self.settings.coalescing == Coalescing::On {
            socket::set_receive_coalescing(socket.as_fd()).map_err(told)?;
        }
        Ok(socket)
    }

    fn receive(&mut self, index: usize, clock: &Clock) -> Result<(), Error> {
        for _ in 0..limits::BURST_MESSAGES {
            let Some(Seat { transfer: Some((socket, client)), due, has_first }) = self.seats.get_mut(index) else {
                return Ok(());
            };
            let (length, from) = match recvfrom(&*socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _, Some(from))) => (length, SocketAddr::try_from(from)),
                Ok((_, _, None)) | Err(Errno::AGAIN | Errno::INTR) => break,
                // Of a packet to a server that is gone: its silence will be noticed.
                Err(Errno::CONNREFUSED) => continue,
                Err(errno) => return Err(Error::socket("receiving a block")(errno)),
            };
            let Ok(from) = from else { continue };
            let now = clock.now();
            self.recorder.received(now, length as u64);
            let piece = usize::from(client.block_bytes()) + DATA_HEADER_BYTES;
            // Whatever does not belong to this transfer is not counted: it changes nothing.
            if length <= piece || self.settings.coalescing == Coalescing::Off {
                let _ = client.handle_datagram(now, from, &self.buffer[..length]);
            } else {
                for datagram in self.buffer[..length].chunks(piece) {
                    let _ = client.handle_datagram(now, from, datagram);
                }
            }
            if !*has_first && client.file_bytes() > 0 {
                *has_first = true;
                self.recorder.timed(FIRST_BLOCK, now.saturating_sub(*due));
            }
            self.settle(index, now)?;
        }
        Ok(())
    }

    /// Sends what the client wants sent, and ends its transfer when that has ended.
    fn settle(&mut self, index: usize, now: Duration) -> Result<(), Error> {
        let Some(Seat { transfer: Some((socket, client)), due, .. }) = self.seats.get_mut(index) else { return Ok(()) };
        let outcome = loop {
            match client.poll_output() {
                Some(Output::Send { to, bytes }) => match sendto(&*socket, bytes, SendFlags::DONTWAIT, &to) {
                    Ok(_) | Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::CONNREFUSED) => {}
                    Err(errno) => return Err(Error::socket("sending an acknowledgement")(errno)),
                },
                Some(Output::Finished(outcome)) => break outcome,
                None => return Ok(()),
            }
        };
        match outcome {
            bootstorm_proto::tftp::client::Outcome::Complete { .. } => {
                self.done += 1;
                self.recorder.exchange(now, TRANSFER, now.saturating_sub(*due));
            }
            other => self.recorder.failed_exchange(now, TRANSFER, &format!("{other:?}")),
        }
        self.seats[index].transfer = None;
        self.idle.push(index as u32);
        Ok(())
    }

    fn fire_timers(&mut self, now: Duration) -> Result<(), Error> {
        for index in 0..self.seats.len() {
            let Some((_, client)) = &mut self.seats[index].transfer else { continue };
            if client.next_timeout().is_some_and(|due| due <= now) {
                client.handle_timeout(now);
                self.settle(index, now)?;
            }
        }
        Ok(())
    }
}

/// Octets before the payload of a data packet (RFC 1350 §5).
const DATA_HEADER_BYTES: usize = 4;
/// How often timers are looked at: a transfer's is a hundred times as long.
const TIMER_TICK: Duration = Duration::from_millis(10);
