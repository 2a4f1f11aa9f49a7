//! The client half: one read of one file, for the load generator and the simulator.
//!
//! [`Client`] asks for options and goes on without those that the server does not acknowledge, and without all if it
//! answers with the first block at once. Order of calls: [`Client::new`], then after every input `poll_output` until `None`.
//! File octets are given in order and once, straight out of the datagram.

use core::net::SocketAddr;
use core::time::Duration;

use super::DropReason;
use super::wire::{CONTROL_BYTES_MAX, ErrorCode, Options, Packet, ReadRequest, ack, encode_error};
use crate::{Monotonic, limits};

/// What a read ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The whole file of so many octets came.
    Complete {
        /// Octets of the file.
        file_bytes: u64,
    },
    /// The server sent an error.
    Refused(ErrorCode),
    /// The server's option acknowledgement holds what was not asked for, or more than was.
    BadOptions,
    /// The file has another size than the server had said.
    WrongSize,
    /// Nothing came after all sends.
    ServerSilent,
}

/// What to do or to know next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output<'a> {
    /// Send this to the server.
    Send {
        /// The server's first port, and the transfer's own after its first answer.
        to: SocketAddr,
        /// The packet.
        bytes: &'a [u8],
    },
    /// The read is over; said once.
    Finished(Outcome),
}

/// How long each send without progress is waited for.
#[derive(Debug, Clone, Copy)]
enum Waits {
    /// The same each time, [`limits::TFTP_RESENDS_MAX`] times.
    Equal(Duration),
    /// After the n-th send the n-th.
    Table(&'static [Duration]),
}

impl Waits {
    fn after(self, send: u32) -> Duration {
        match self {
            Waits::Equal(wait) => wait,
            Waits::Table(waits) => {
                let index = usize::try_from(send.saturating_sub(1)).unwrap_or(usize::MAX);
                waits.get(index).or(waits.last()).copied().unwrap_or_default()
            }
        }
    }

    fn sends_max(self) -> u32 {
        match self {
            Waits::Equal(_) => limits::TFTP_RESENDS_MAX,
            Waits::Table(waits) => u32::try_from(waits.len()).unwrap_or(u32::MAX),
        }
    }
}

/// A read. See the module for its contract.
#[derive(Debug)]
pub struct Client {
    server: SocketAddr,
    /// The port that the server answers from (its transfer id), once known.
    transfer: Option<SocketAddr>,
    asked: Options,
    block_bytes: u16,
    window_blocks: u16,
    said_bytes: Option<u64>,
    /// Blocks received in order.
    received: u64,
    /// Blocks received since the last acknowledgement.
    unacknowledged: u16,
    /// A gap was answered; the blocks after it that are still under way are not answered again.
    gap_told: bool,
    file_bytes: u64,
    packet: Vec<u8>,
    send: bool,
    waits: Waits,
    due: Monotonic,
    sends_without_progress: u32,
    finished: Option<Outcome>,
    over: bool,
}

impl Client {
    /// Begins to read `request` from a server; the first packet is ready. The request must fit
    /// [`limits::TFTP_REQUEST_BYTES_MAX`], else the read ends with [`Outcome::BadOptions`].
    /// `timeout` is how long to wait before a packet is sent again.
    pub fn new(now: Monotonic, server: SocketAddr, request: &ReadRequest<'_>, timeout: Duration) -> Client {
        Client::begin(now, server, request, Waits::Equal(timeout))
    }

    /// As [`new`](Client::new), with a wait of its own after each send without progress; after the last of them the read
    /// ends with [`Outcome::ServerSilent`].
    pub fn with_waits(
        now: Monotonic,
        server: SocketAddr,
        request: &ReadRequest<'_>,
        waits: &'static [Duration],
    ) -> Client {
        Client::begin(now, server, request, Waits::Table(waits))
    }

    fn begin(now: Monotonic, server: SocketAddr, request: &ReadRequest<'_>, waits: Waits) -> Client {
        let mut packet = vec![0; limits::TFTP_REQUEST_BYTES_MAX];
        let length = request.encode(&mut packet);
        packet.truncate(length.unwrap_or(0));
        let mut client = Client {
            server,
            transfer: None,
            asked: request.options,
            block_bytes: limits::TFTP_BLOCK_BYTES_DEFAULT,
            window_blocks: 1,
            said_bytes: None,
            received: 0,
            unacknowledged: 0,
            gap_told: false,
            file_bytes: 0,
            packet,
            send: length.is_some(),
            waits,
            due: now + waits.after(1),
            sends_without_progress: 1,
            finished: None,
            over: false,
        };
        if length.is_none() {
            client.finish(Outcome::BadOptions);
        }
        client
    }

    /// The file's size as the server said it.
    pub fn said_bytes(&self) -> Option<u64> {
        self.said_bytes
    }

    /// Octets of a block as agreed so far.
    pub fn block_bytes(&self) -> u16 {
        self.block_bytes
    }

    /// Octets received in order.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Takes a datagram; gives the file's octets in it that are next in order, often none.
    ///
    /// # Errors
    /// A reason to count; the read is as before.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Monotonic,
        from: SocketAddr,
        bytes: &'a [u8],
    ) -> Result<&'a [u8], DropReason> {
        let known = self.transfer.map_or(from.ip() == self.server.ip(), |transfer| from == transfer);
        if !known {
            return Err(DropReason::WrongTransferId);
        }
        if self.over {
            return Err(DropReason::Stale);
        }
        let packet = Packet::parse(bytes)?;
        match packet {
            Packet::Data { block, payload } => self.handle_data(now, from, block, payload),
            Packet::OptionAck(options) => self.handle_option_ack(now, from, options).map(|()| [].as_slice()),
            Packet::Error { code } => {
                self.finish(Outcome::Refused(code));
                Ok(&[])
            }
            Packet::ReadRequest(_) | Packet::Ack { .. } => Err(DropReason::Unexpected),
        }
    }

    fn handle_option_ack(&mut self, now: Monotonic, from: SocketAddr, options: Options) -> Result<(), DropReason> {
        if self.received > 0 {
            return Err(DropReason::Stale);
        }
        if !is_within(&self.asked, &options) {
            self.transfer = Some(from);
            self.packet.resize(CONTROL_BYTES_MAX, 0);
            let length = encode_error(ErrorCode::OptionRefused, &mut self.packet).unwrap_or(0);
            self.packet.truncate(length);
            self.finish(Outcome::BadOptions);
            self.send = true;
            return Ok(());
        }
        self.transfer = Some(from);
        self.block_bytes = options.block_bytes.unwrap_or(limits::TFTP_BLOCK_BYTES_DEFAULT);
        self.window_blocks = options.window_blocks.unwrap_or(1);
        self.said_bytes = options.transfer_bytes;
        self.acknowledge(now);
        Ok(())
    }

    fn handle_data<'a>(
        &mut self,
        now: Monotonic,
        from: SocketAddr,
        block: u16,
        payload: &'a [u8],
    ) -> Result<&'a [u8], DropReason> {
        if payload.len() > usize::from(self.block_bytes) {
            return Err(DropReason::TooLong);
        }
        let next = wire_number(self.received.wrapping_add(1));
        if block != next {
            // The first block decides who the server is, so one out of order cannot come before it.
            if self.transfer.is_none() {
                return Err(DropReason::Unexpected);
            }
            return self.handle_gap(now, block, next);
        }
        self.transfer = Some(from);
        self.gap_told = false;
        self.received += 1;
        self.unacknowledged += 1;
        self.file_bytes += u64::try_from(payload.len()).unwrap_or(u64::MAX);
        let last = payload.len() < usize::from(self.block_bytes);
        if last || self.unacknowledged >= self.window_blocks {
            self.acknowledge(now);
        } else {
            self.due = now + self.waits.after(1);
            self.sends_without_progress = 1;
        }
        if last {
            let wrong = self.said_bytes.is_some_and(|said| said != self.file_bytes);
            let file_bytes = self.file_bytes;
            self.finish(if wrong { Outcome::WrongSize } else { Outcome::Complete { file_bytes } });
            self.send = true;
        }
        Ok(payload)
    }

    /// A block that is not the next: one ahead means a loss, told once by acknowledging the last in order (RFC 7440 §4); one
    /// behind is a copy.
    fn handle_gap<'a>(&mut self, now: Monotonic, block: u16, next: u16) -> Result<&'a [u8], DropReason> {
        let ahead = block.wrapping_sub(next) < self.window_blocks;
        if !ahead || self.gap_told || self.window_blocks == 1 {
            return Err(DropReason::Stale);
        }
        self.acknowledge(now);
        self.gap_told = true;
        Ok(&[])
    }

    fn acknowledge(&mut self, now: Monotonic) {
        self.packet.clear();
        self.packet.extend_from_slice(&ack(wire_number(self.received)));
        self.unacknowledged = 0;
        self.send = true;
        self.sends_without_progress = 1;
        self.due = now + self.waits.after(1);
    }

    /// Looks at the timer.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.over || now < self.due {
            return;
        }
        if self.sends_without_progress >= self.waits.sends_max() {
            self.finish(Outcome::ServerSilent);
            return;
        }
        let sends = self.sends_without_progress;
        if self.transfer.is_some() {
            // What came since the last acknowledgement is acknowledged now.
            self.acknowledge(now);
        }
        self.gap_told = false;
        self.send = true;
        self.sends_without_progress = sends + 1;
        self.due = now + self.waits.after(sends + 1);
    }

    fn finish(&mut self, outcome: Outcome) {
        if !self.over {
            self.over = true;
            self.send = false;
            self.finished = Some(outcome);
        }
    }

    /// The next thing to do or to know; `None` when there is nothing before the next input.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        if core::mem::take(&mut self.send) {
            return Some(Output::Send { to: self.transfer.unwrap_or(self.server), bytes: &self.packet });
        }
        self.finished.take().map(Output::Finished)
    }

    /// When `handle_timeout` is due; `None` once the read is over.
    pub fn next_timeout(&self) -> Option<Monotonic> {
        (!self.over).then_some(self.due)
    }
}

fn wire_number(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// Whether a server acknowledged nothing that was not asked for, and nothing larger.
fn is_within(asked: &Options, got: &Options) -> bool {
    let not_larger =
        |asked: Option<u16>, got: Option<u16>| got.is_none_or(|got| asked.is_some_and(|asked| got <= asked));
    not_larger(asked.block_bytes, got.block_bytes)
        && not_larger(asked.window_blocks, got.window_blocks)
        && (got.timeout_seconds.is_none() || got.timeout_seconds == asked.timeout_seconds)
        && (got.transfer_bytes.is_none() || asked.transfer_bytes.is_some())
}

#[cfg(test)]
mod tests {
    use super::super::server::{self, Settings, Transfer};
    use super::super::wire::data_header;
    use super::*;
    use proptest::prelude::*;

    const SERVER: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1)), 69);
    const TRANSFER: SocketAddr = SocketAddr::new(SERVER.ip(), 40_000);
    const CLIENT: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 9)), 2_070);

    fn run(file: &[u8], options: Options, lost: &[bool]) -> (Vec<u8>, Outcome, server::Outcome) {
        let request = ReadRequest { name: "f", options };
        let mut now = Monotonic::ZERO;
        let mut client = Client::new(now, SERVER, &request, Duration::from_secs(2));
        let (mut transfer, mut read) = (None::<Transfer>, Vec::new());
        let (mut client_end, mut server_end) = (None, None);
        let mut fate = lost.iter().copied().chain(core::iter::repeat(false));
        for _ in 0..100_000 {
            let mut quiet = true;
            while let Some(output) = client.poll_output() {
                quiet = false;
                match output {
                    Output::Finished(outcome) => client_end = Some(outcome),
                    Output::Send { .. } if fate.next() == Some(true) => {}
                    Output::Send { to, bytes } if to == SERVER => match Packet::parse(bytes) {
                        Ok(Packet::ReadRequest(request)) if transfer.is_none() => {
                            let size = file.len() as u64;
                            transfer = Some(Transfer::new(now, CLIENT, &request, size, &Settings::default()));
                        }
                        _ => {}
                    },
                    Output::Send { bytes, .. } => {
                        if let Some(transfer) = &mut transfer {
                            let _ = transfer.handle_datagram(now, CLIENT, bytes);
                        }
                    }
                }
            }
            while let Some(output) = transfer.as_mut().and_then(Transfer::poll_output) {
                quiet = false;
                match output {
                    server::Output::Finished(outcome) => server_end = Some(outcome),
                    server::Output::Control(control) => {
                        if fate.next() == Some(false) {
                            let _ = client.handle_datagram(now, TRANSFER, control.as_bytes());
                        }
                    }
                    server::Output::Blocks(window) => {
                        for (header, range) in window.datagrams() {
                            if fate.next() == Some(false) {
                                let part = &file[range.start as usize..range.end as usize];
                                let datagram = [&header, part].concat();
                                read.extend_from_slice(client.handle_datagram(now, TRANSFER, &datagram).unwrap_or(&[]));
                            }
                        }
                    }
                }
            }
            if quiet {
                let due = [client.next_timeout(), transfer.as_ref().and_then(Transfer::next_timeout)];
                let Some(due) = due.into_iter().flatten().min() else { break };
                now = due;
                client.handle_timeout(now);
                if let Some(transfer) = &mut transfer {
                    transfer.handle_timeout(now);
                }
            }
        }
        (read, client_end.unwrap(), server_end.unwrap())
    }

    #[test]
    fn a_server_without_options_is_fine() {
        let options = Options { block_bytes: Some(1_468), transfer_bytes: Some(0), ..Options::default() };
        let mut client =
            Client::new(Monotonic::ZERO, SERVER, &ReadRequest { name: "f", options }, Duration::from_secs(1));
        assert!(matches!(client.poll_output(), Some(Output::Send { to: SERVER, .. })));
        let datagram = [&data_header(1)[..], b"short"].concat();
        assert_eq!(client.handle_datagram(Monotonic::ZERO, TRANSFER, &datagram), Ok(&b"short"[..]));
        assert_eq!(client.poll_output(), Some(Output::Send { to: TRANSFER, bytes: &ack(1) }));
        assert_eq!(client.poll_output(), Some(Output::Finished(Outcome::Complete { file_bytes: 5 })));
    }

    #[test]
    fn a_server_that_acknowledges_more_than_asked_is_refused() {
        let options = Options { block_bytes: Some(512), ..Options::default() };
        let mut client =
            Client::new(Monotonic::ZERO, SERVER, &ReadRequest { name: "f", options }, Duration::from_secs(1));
        client.poll_output();
        client.handle_datagram(Monotonic::ZERO, TRANSFER, b"\0\x06blksize\x001468\0").unwrap();
        let Some(Output::Send { bytes, .. }) = client.poll_output() else { panic!("no error packet") };
        assert_eq!(Packet::parse(bytes), Ok(Packet::Error { code: ErrorCode::OptionRefused }));
        assert_eq!(client.poll_output(), Some(Output::Finished(Outcome::BadOptions)));
    }

    #[test]
    fn a_silent_server_is_given_up() {
        let request = ReadRequest { name: "f", options: Options::default() };
        let mut client = Client::new(Monotonic::ZERO, SERVER, &request, Duration::from_secs(1));
        let mut sends = 0;
        loop {
            match client.poll_output() {
                Some(Output::Send { .. }) => sends += 1,
                Some(Output::Finished(outcome)) => {
                    assert_eq!((sends, outcome), (limits::TFTP_RESENDS_MAX, Outcome::ServerSilent));
                    break;
                }
                None => {
                    let due = client.next_timeout().unwrap();
                    client.handle_timeout(due);
                }
            }
        }
    }

    #[test]
    fn waits_follow_their_table_and_begin_again_with_progress() {
        const WAITS: &[Duration] = &[Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];
        let request = ReadRequest { name: "f", options: Options::default() };
        let mut client = Client::with_waits(Monotonic::ZERO, SERVER, &request, WAITS);
        client.handle_timeout(client.next_timeout().unwrap());
        assert_eq!(client.next_timeout(), Some(Duration::from_secs(3)));
        let mut block = data_header(1).to_vec();
        block.extend_from_slice(&[0; 512]);
        client.handle_datagram(Duration::from_secs(2), TRANSFER, &block).unwrap();
        for due in [3, 5, 10] {
            let due = Duration::from_secs(due);
            assert_eq!(client.next_timeout(), Some(due));
            client.handle_timeout(due);
        }
        while !matches!(client.poll_output(), Some(Output::Finished(outcome)) if outcome == Outcome::ServerSilent) {
            assert_eq!(client.next_timeout(), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_halves_move_a_file_over_a_lossy_link(
            size in 0usize..20_000, block in proptest::option::of(8u16..2_000), window in proptest::option::of(1u16..80),
            tsize in any::<bool>(), lost in proptest::collection::vec(proptest::bool::weighted(0.15), 0..40),
        ) {
            let file: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            let options = Options {
                block_bytes: block, window_blocks: window, timeout_seconds: None, transfer_bytes: tsize.then_some(0),
            };
            let (read, client, server) = run(&file, options, &lost);
            if let Outcome::Complete { file_bytes } = client {
                prop_assert_eq!(file_bytes, size as u64);
                prop_assert_eq!(&read, &file);
                // The last acknowledgement may be the one that was lost.
                prop_assert!(matches!(server, server::Outcome::Complete | server::Outcome::PeerSilent));
            } else {
                // Only unlucky runs of losses end otherwise; what was read until then is the file's start.
                prop_assert!(matches!(client, Outcome::ServerSilent), "{:?}", client);
                prop_assert!(file.starts_with(&read));
            }
        }
    }
}
