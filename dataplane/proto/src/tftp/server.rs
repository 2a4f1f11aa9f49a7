//! The server half: one transfer of one file to one peer.
//!
//! [`Transfer`] holds no file and no buffer. It says which blocks to send as ranges of the file ([`Window`]), so that the
//! driver can gather header and payload, and it never says more than the peer has room for. Order of calls: after
//! [`Transfer::new`], every `handle_datagram` and `handle_timeout`, call `poll_output` until `None`.
//!
//! A peer that has not acknowledged anything may be a forged address: it gets at most
//! [`limits::TFTP_UNPROVEN_SENDS_MAX`] sends, each either an option acknowledgement or one block of 512 octets.
//!
//! Blocks count from 1 and wrap from 65,535 to 0, as all firmware expects. Inside, block numbers are 64 bits wide.

use core::net::SocketAddr;
use core::ops::Range;
use core::time::Duration;

use super::DropReason;
use super::wire::{CONTROL_BYTES_MAX, ErrorCode, Options, Packet, ReadRequest, encode_error, encode_option_ack};
use crate::{Monotonic, limits};

/// What the link and the rack allow, within [`limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Octets of the largest block agreed to.
    pub block_bytes_max: u16,
    /// Blocks of the largest window agreed to; admission lowers it.
    pub window_blocks_max: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { block_bytes_max: limits::TFTP_BLOCK_BYTES_MAX, window_blocks_max: limits::TFTP_WINDOW_BLOCKS_MAX }
    }
}

/// Consecutive blocks to send, each as one datagram of header and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Number of the first block, counted from 1 without wrapping.
    pub first_block: u64,
    /// Blocks, at least 1.
    pub blocks: u16,
    /// Octets of a full block.
    pub block_bytes: u16,
    /// Octets of the file covered: `blocks` full ones, fewer at the file's end, none for an empty last block.
    pub file_start: u64,
    /// End of the octets covered.
    pub file_end: u64,
}

impl Window {
    /// The datagrams in order: header and the file's range for each.
    pub fn datagrams(&self) -> impl Iterator<Item = ([u8; 4], Range<u64>)> + use<> {
        let window = *self;
        (0..u64::from(window.blocks)).map(move |index| {
            let block_bytes = u64::from(window.block_bytes);
            let start = window.file_start + index * block_bytes;
            let end = window.file_end.min(start + block_bytes);
            (super::wire::data_header(wire_number(window.first_block + index)), start..end.max(start))
        })
    }

    /// Octets of the file in the window.
    pub fn bytes(&self) -> u64 {
        self.file_end - self.file_start
    }
}

/// A block's number on the wire: the low 16 bits.
fn wire_number(block: u64) -> u16 {
    let [.., high, low] = block.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// A short packet, held whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Control {
    bytes: [u8; CONTROL_BYTES_MAX],
    length: usize,
}

impl Control {
    /// An error packet, for a request that no transfer is made for.
    pub fn error(code: ErrorCode) -> Control {
        let mut control = Control { bytes: [0; CONTROL_BYTES_MAX], length: 0 };
        control.length = encode_error(code, &mut control.bytes).unwrap_or(0);
        control
    }

    fn option_ack(options: &Options) -> Control {
        let mut control = Control { bytes: [0; CONTROL_BYTES_MAX], length: 0 };
        control.length = encode_option_ack(options, &mut control.bytes).unwrap_or(0);
        control
    }

    /// The packet's octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl core::fmt::Debug for Control {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(formatter, "Control({})", self.as_bytes().escape_ascii())
    }
}

/// How a transfer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The last block was acknowledged.
    Complete,
    /// The client ended it; `OptionRefused` after an option acknowledgement is a question for the size, and no fault.
    Aborted(ErrorCode),
    /// No acknowledgement for [`limits::TFTP_SILENCE_MAX`].
    PeerSilent,
    /// The deadline of the whole transfer passed.
    TooSlow,
    /// We ended it with an error packet.
    Refused(ErrorCode),
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Send this packet to the peer.
    Control(Control),
    /// Send these blocks to the peer.
    Blocks(Window),
    /// The transfer is over; said once, nothing follows.
    Finished(Outcome),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The option acknowledgement is out, awaiting ACK 0.
    Negotiating,
    /// Blocks are out.
    Sending,
    /// Over.
    Over,
}

/// A transfer. See the module for its contract.
#[derive(Debug)]
pub struct Transfer {
    peer: SocketAddr,
    file_bytes: u64,
    block_bytes: u16,
    window_blocks: u16,
    agreed: Options,
    state: State,
    /// Last block acknowledged, 0 before any.
    acknowledged: u64,
    /// Last block sent in the current window.
    sent: u64,
    /// A window was already sent again because of a repeated acknowledgement; the next one waits for its timer.
    resent_for_duplicate: bool,
    proven: bool,
    sends_without_progress: u32,
    progress_at: Monotonic,
    round_trip: RoundTrip,
    /// When the packets now out were first sent; `None` once they were sent again (Karn's rule).
    sent_at: Option<Monotonic>,
    resend_at: Monotonic,
    deadline: Monotonic,
    pending: Option<Output>,
    finished: Option<Outcome>,
}

impl Transfer {
    /// Begins the answer to a request for a file of `file_bytes` octets; the first output is ready.
    ///
    /// Options are agreed to at most as the client asked and as `settings` allow; those absent stay at their defaults, and
    /// without any the first block is the answer (RFC 2347 §1).
    pub fn new(
        now: Monotonic,
        peer: SocketAddr,
        request: &ReadRequest<'_>,
        file_bytes: u64,
        settings: &Settings,
    ) -> Transfer {
        let block_max = settings.block_bytes_max.clamp(limits::TFTP_BLOCK_BYTES_MIN, limits::TFTP_BLOCK_BYTES_MAX);
        let window_max = settings.window_blocks_max.clamp(1, limits::TFTP_WINDOW_BLOCKS_MAX);
        let asked = request.options;
        let agreed = Options {
            block_bytes: asked.block_bytes.map(|bytes| bytes.min(block_max)),
            window_blocks: asked.window_blocks.map(|blocks| blocks.min(window_max)),
            timeout_seconds: asked.timeout_seconds,
            transfer_bytes: asked.transfer_bytes.map(|_| file_bytes),
        };
        let mut transfer = Transfer {
            peer,
            file_bytes,
            block_bytes: agreed.block_bytes.unwrap_or(limits::TFTP_BLOCK_BYTES_DEFAULT),
            window_blocks: agreed.window_blocks.unwrap_or(1),
            agreed,
            state: if agreed.is_empty() { State::Sending } else { State::Negotiating },
            acknowledged: 0,
            sent: 0,
            resent_for_duplicate: false,
            proven: false,
            sends_without_progress: 0,
            progress_at: now,
            round_trip: RoundTrip::new(agreed.timeout_seconds),
            sent_at: None,
            resend_at: now,
            deadline: now + deadline(file_bytes),
            pending: None,
            finished: None,
        };
        transfer.send(now);
        transfer
    }

    /// The peer that the transfer belongs to.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Octets of the file that the peer has acknowledged.
    pub fn acknowledged_bytes(&self) -> u64 {
        self.file_bytes.min(self.acknowledged.saturating_mul(u64::from(self.block_bytes)))
    }

    /// Whether the peer has acknowledged anything, so that its address is its own.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Takes a datagram that came to the transfer's port.
    ///
    /// # Errors
    /// A reason to count; the transfer is as before, and nothing is answered.
    pub fn handle_datagram(&mut self, now: Monotonic, from: SocketAddr, bytes: &[u8]) -> Result<(), DropReason> {
        if from != self.peer {
            return Err(DropReason::WrongTransferId);
        }
        match Packet::parse(bytes)? {
            Packet::Ack { block } => self.handle_ack(now, block),
            Packet::Error { code } => {
                self.finish(Outcome::Aborted(code));
                Ok(())
            }
            Packet::ReadRequest(_) | Packet::Data { .. } | Packet::OptionAck(_) => Err(DropReason::Unexpected),
        }
    }

    fn handle_ack(&mut self, now: Monotonic, block: u16) -> Result<(), DropReason> {
        match self.state {
            State::Over => return Err(DropReason::Stale),
            State::Negotiating if block != 0 => return Err(DropReason::AheadOfWindow),
            State::Negotiating | State::Sending => {}
        }
        // How far the number is past the last acknowledged one, on the ring of 16 bits.
        let ahead = u64::from(block.wrapping_sub(wire_number(self.acknowledged)));
        if ahead > self.sent - self.acknowledged {
            let behind = (1 << 16) - ahead;
            let recent = 2 * u64::from(self.window_blocks);
            let stale = behind <= recent && behind <= self.acknowledged;
            return Err(if stale { DropReason::Stale } else { DropReason::AheadOfWindow });
        }
        if ahead == 0 && self.state == State::Sending {
            return self.handle_duplicate(now);
        }
        self.proven = true;
        self.state = State::Sending;
        self.sends_without_progress = 0;
        self.progress_at = now;
        self.resent_for_duplicate = false;
        if let Some(sent_at) = self.sent_at.take() {
            self.round_trip.measured(now.saturating_sub(sent_at));
        }
        self.acknowledged += ahead;
        self.sent = self.acknowledged;
        if self.acknowledged == self.last_block() {
            self.finish(Outcome::Complete);
        } else {
            self.send(now);
        }
        Ok(())
    }

    /// The last block acknowledged is acknowledged again: under windows the client says that the first block of the window
    /// is missing (RFC 7440 §4). One block at a time it says nothing, and answering it would double every packet from then
    /// on (RFC 1123 §4.2.3.1), so only the timer resends. When that has no sends left, the client's timer is what is left.
    fn handle_duplicate(&mut self, now: Monotonic) -> Result<(), DropReason> {
        if self.proven && self.is_out_of_sends() {
            self.progress_at = now;
            self.send(now);
            self.sent_at = None;
            self.resend_at = now + limits::TFTP_SILENCE_MAX;
            return Ok(());
        }
        if self.window_blocks == 1 || self.resent_for_duplicate || !self.proven {
            return Err(DropReason::Stale);
        }
        self.resent_for_duplicate = true;
        self.resend(now);
        Ok(())
    }

    /// Looks at the timers.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.state == State::Over {
            return;
        }
        if now >= self.deadline {
            self.finish(Outcome::TooSlow);
        } else if now >= self.resend_at {
            self.round_trip.back_off();
            self.resend(now);
        }
    }

    fn resend(&mut self, now: Monotonic) {
        if self.is_out_of_sends() {
            let silent = self.progress_at + limits::TFTP_SILENCE_MAX;
            match now >= silent {
                true => self.finish(Outcome::PeerSilent),
                false => self.resend_at = silent,
            }
            return;
        }
        self.send(now);
        self.sent_at = None;
    }

    /// Whether nothing more goes out until the peer says something.
    pub fn is_out_of_sends(&self) -> bool {
        let sends_max = if self.proven { limits::TFTP_RESENDS_MAX } else { limits::TFTP_UNPROVEN_SENDS_MAX };
        self.sends_without_progress >= sends_max
    }

    /// Queues the option acknowledgement or the window after the last acknowledged block.
    fn send(&mut self, now: Monotonic) {
        self.pending = Some(match self.state {
            State::Negotiating => Output::Control(Control::option_ack(&self.agreed)),
            State::Sending | State::Over => Output::Blocks(self.next_window()),
        });
        self.sends_without_progress += 1;
        self.sent_at = Some(now);
        self.resend_at = now + self.round_trip.timeout();
    }

    fn next_window(&mut self) -> Window {
        let block_bytes = u64::from(self.block_bytes);
        let left = self.last_block() - self.acknowledged;
        let blocks = u16::try_from(left).unwrap_or(u16::MAX).min(self.window_blocks);
        let file_start = self.acknowledged * block_bytes;
        self.sent = self.acknowledged + u64::from(blocks);
        Window {
            first_block: self.acknowledged + 1,
            blocks,
            block_bytes: self.block_bytes,
            file_start,
            file_end: self.file_bytes.min(self.sent * block_bytes),
        }
    }

    /// The last block is short or empty, so there is always one more than there are full blocks.
    fn last_block(&self) -> u64 {
        self.file_bytes / u64::from(self.block_bytes) + 1
    }

    /// Ends the transfer with an error packet, such as when the file cannot be read any more.
    pub fn refuse(&mut self, code: ErrorCode) {
        if self.state != State::Over {
            self.finish(Outcome::Refused(code));
            self.pending = Some(Output::Control(Control::error(code)));
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if self.state != State::Over {
            self.state = State::Over;
            self.pending = None;
            self.finished = Some(outcome);
        }
    }

    /// The next thing to do; `None` when there is nothing before the next input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.pending.take().or_else(|| self.finished.take().map(Output::Finished))
    }

    /// When `handle_timeout` is due; `None` once the transfer is over.
    pub fn next_timeout(&self) -> Option<Monotonic> {
        (self.state != State::Over).then(|| self.resend_at.min(self.deadline))
    }
}

/// The time that a whole transfer has: a base and its size at the least rate.
fn deadline(file_bytes: u64) -> Duration {
    limits::TFTP_DEADLINE_BASE + Duration::from_secs(file_bytes / limits::TFTP_RATE_BYTES_PER_SECOND_MIN)
}

/// Retransmission time from measured round trips (RFC 6298 §2, with the first guess and bounds of [`limits`]).
#[derive(Debug)]
struct RoundTrip {
    smoothed: Option<Duration>,
    variance: Duration,
    back_offs: u32,
    /// The client's own timeout, if agreed: it would resend then anyway.
    ceiling: Duration,
}

impl RoundTrip {
    fn new(timeout_seconds: Option<u8>) -> RoundTrip {
        let agreed = timeout_seconds.map_or(limits::TFTP_RETRANSMIT_MAX, |seconds| Duration::from_secs(seconds.into()));
        let ceiling = agreed.min(limits::TFTP_RETRANSMIT_MAX);
        RoundTrip { smoothed: None, variance: Duration::ZERO, back_offs: 0, ceiling }
    }

    fn measured(&mut self, sample: Duration) {
        self.back_offs = 0;
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variance = sample / 2;
            }
            Some(smoothed) => {
                self.variance = (self.variance * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    fn back_off(&mut self) {
        self.back_offs = self.back_offs.saturating_add(1).min(6);
    }

    fn timeout(&self) -> Duration {
        let base = self.smoothed.map_or(limits::TFTP_RETRANSMIT_FIRST, |smoothed| smoothed + self.variance * 4);
        (base.max(limits::TFTP_RETRANSMIT_MIN) * (1 << self.back_offs)).min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::ack;
    use super::*;

    const PEER: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 9)), 2_070);

    fn at(milliseconds: u64) -> Monotonic {
        Monotonic::from_millis(milliseconds)
    }

    fn transfer(file_bytes: u64, options: Options) -> Transfer {
        Transfer::new(at(0), PEER, &ReadRequest { name: "f", options }, file_bytes, &Settings::default())
    }

    fn window(output: Option<Output>) -> Window {
        match output {
            Some(Output::Blocks(window)) => window,
            other => panic!("no blocks but {other:?}"),
        }
    }

    #[test]
    fn lock_step_without_options() {
        let mut transfer = transfer(1_024, Options::default());
        let datagrams: Vec<_> = window(transfer.poll_output()).datagrams().collect();
        assert_eq!(datagrams, [([0, 3, 0, 1], 0..512)]);
        assert_eq!(transfer.poll_output(), None);
        transfer.handle_datagram(at(5), PEER, &ack(1)).unwrap();
        assert_eq!(window(transfer.poll_output()).file_start, 512);
        // A repeated acknowledgement does not make a second copy (the sorcerer's apprentice).
        assert_eq!(transfer.handle_datagram(at(6), PEER, &ack(1)), Err(DropReason::Stale));
        transfer.handle_datagram(at(7), PEER, &ack(2)).unwrap();
        // The file is a whole number of blocks, so an empty one ends it.
        let last: Vec<_> = window(transfer.poll_output()).datagrams().collect();
        assert_eq!(last, [([0, 3, 0, 3], 1_024..1_024)]);
        transfer.handle_datagram(at(8), PEER, &ack(3)).unwrap();
        assert_eq!(transfer.poll_output(), Some(Output::Finished(Outcome::Complete)));
        assert_eq!((transfer.poll_output(), transfer.next_timeout()), (None, None));
    }

    #[test]
    fn windows_and_what_is_agreed() {
        let asked = Options {
            block_bytes: Some(9_000),
            window_blocks: Some(500),
            timeout_seconds: Some(3),
            transfer_bytes: Some(0),
        };
        let mut transfer = transfer(1_468 * 100, asked);
        let Some(Output::Control(control)) = transfer.poll_output() else { panic!("no option acknowledgement") };
        let agreed = Options {
            block_bytes: Some(1_468),
            window_blocks: Some(64),
            timeout_seconds: Some(3),
            transfer_bytes: Some(146_800),
        };
        assert_eq!(Packet::parse(control.as_bytes()), Ok(Packet::OptionAck(agreed)));
        transfer.handle_datagram(at(1), PEER, &ack(0)).unwrap();
        assert_eq!(window(transfer.poll_output()).blocks, 64);
        // A gap after block 10: go back to it.
        transfer.handle_datagram(at(2), PEER, &ack(10)).unwrap();
        let again = window(transfer.poll_output());
        assert_eq!((again.first_block, again.blocks), (11, 64));
        // The first block of the window is missing: once at once, then by the timer only.
        transfer.handle_datagram(at(3), PEER, &ack(10)).unwrap();
        assert_eq!(window(transfer.poll_output()).first_block, 11);
        assert_eq!(transfer.handle_datagram(at(3), PEER, &ack(10)), Err(DropReason::Stale));
        transfer.handle_datagram(at(4), PEER, &ack(74)).unwrap();
        let last = window(transfer.poll_output());
        assert_eq!((last.first_block, last.blocks, last.bytes()), (75, 27, 26 * 1_468));
    }

    #[test]
    fn tftp_acks_ahead_stale_and_of_strangers_change_nothing() {
        let mut transfer = transfer(10_000, Options { window_blocks: Some(4), ..Options::default() });
        transfer.poll_output();
        assert_eq!(transfer.handle_datagram(at(1), PEER, &ack(1)), Err(DropReason::AheadOfWindow));
        let stranger = SocketAddr::new(PEER.ip(), 2_071);
        assert_eq!(transfer.handle_datagram(at(1), stranger, &ack(0)), Err(DropReason::WrongTransferId));
        transfer.handle_datagram(at(1), PEER, &ack(0)).unwrap();
        transfer.poll_output();
        assert_eq!(transfer.handle_datagram(at(2), PEER, &ack(5)), Err(DropReason::AheadOfWindow));
        assert_eq!(transfer.handle_datagram(at(2), PEER, &ack(65_535)), Err(DropReason::AheadOfWindow));
        transfer.handle_datagram(at(2), PEER, &ack(4)).unwrap();
        transfer.poll_output();
        assert_eq!(transfer.handle_datagram(at(3), PEER, &ack(2)), Err(DropReason::Stale));
        assert_eq!(transfer.poll_output(), None);
    }

    #[test]
    fn tftp_unproven_peers_get_three_small_sends() {
        for options in [Options::default(), Options { block_bytes: Some(1_468), ..Options::default() }] {
            let mut transfer = transfer(1 << 20, options);
            let (mut sends, mut octets) = (0, 0);
            loop {
                match transfer.poll_output() {
                    Some(Output::Control(control)) => octets += control.as_bytes().len(),
                    Some(Output::Blocks(window)) => octets += 4 * usize::from(window.blocks) + window.bytes() as usize,
                    Some(Output::Finished(outcome)) => {
                        assert_eq!(outcome, Outcome::PeerSilent);
                        break;
                    }
                    None => {
                        let due = transfer.next_timeout().unwrap();
                        transfer.handle_timeout(due);
                        continue;
                    }
                }
                sends += 1;
            }
            assert_eq!(sends, limits::TFTP_UNPROVEN_SENDS_MAX);
            assert!(octets <= limits::TFTP_UNPROVEN_BYTES_MAX, "{octets}");
        }
    }

    #[test]
    fn block_numbers_wrap_to_zero() {
        let mut transfer =
            transfer(8 * 70_000, Options { block_bytes: Some(8), window_blocks: Some(64), ..Options::default() });
        transfer.poll_output();
        transfer.handle_datagram(at(1), PEER, &ack(0)).unwrap();
        let mut seen_zero = false;
        let mut next = 0;
        while let Some(Output::Blocks(window)) = transfer.poll_output() {
            assert_eq!(window.file_start, next);
            next = window.file_end;
            seen_zero |= window.datagrams().any(|(header, _)| header == [0, 3, 0, 0]);
            let last = window.datagrams().last().unwrap().0;
            transfer.handle_datagram(at(2), PEER, &ack(u16::from_be_bytes([last[2], last[3]]))).unwrap();
        }
        assert_eq!(next, 8 * 70_000);
        assert!(seen_zero);
        assert_eq!(transfer.acknowledged_bytes(), next);
    }

    #[test]
    fn timers_adapt_back_off_and_end() {
        let mut transfer = transfer(1 << 20, Options { window_blocks: Some(8), ..Options::default() });
        transfer.poll_output();
        assert_eq!(transfer.next_timeout(), Some(limits::TFTP_RETRANSMIT_FIRST));
        transfer.handle_datagram(at(10), PEER, &ack(0)).unwrap();
        transfer.poll_output();
        // 10 ms measured: the floor holds.
        assert_eq!(transfer.next_timeout(), Some(at(10) + limits::TFTP_RETRANSMIT_MIN));
        let mut sends = 1;
        let mut last = at(10);
        let outcome = loop {
            let now = transfer.next_timeout().unwrap();
            assert!(now > last);
            last = now;
            transfer.handle_timeout(now);
            match transfer.poll_output() {
                Some(Output::Finished(outcome)) => break outcome,
                Some(Output::Blocks(_)) => sends += 1,
                Some(Output::Control(_)) | None => {}
            }
        };
        assert_eq!((sends, outcome), (limits::TFTP_RESENDS_MAX, Outcome::PeerSilent));
        assert_eq!(last, at(10) + limits::TFTP_SILENCE_MAX);
    }

    #[test]
    fn a_client_that_repeats_itself_late_is_answered_and_one_that_is_silent_is_not() {
        for window_blocks in [None, Some(8)] {
            let options = Options { window_blocks, block_bytes: Some(1_468), ..Options::default() };
            let mut transfer = transfer(1 << 20, options);
            transfer.poll_output();
            transfer.handle_datagram(at(10), PEER, &ack(0)).unwrap();
            while !transfer.is_out_of_sends() {
                assert!(matches!(transfer.poll_output(), Some(Output::Blocks(_))));
                transfer.handle_timeout(transfer.next_timeout().unwrap());
            }
            transfer.poll_output();
            transfer.handle_timeout(transfer.next_timeout().unwrap());
            assert_eq!(transfer.poll_output(), None, "the last send is waited for, too");
            for second in [15, 30, 55] {
                transfer.handle_datagram(at(second * 1_000), PEER, &ack(0)).unwrap();
                assert_eq!(window(transfer.poll_output()).first_block, 1);
                assert_eq!(transfer.next_timeout(), Some(at(second * 1_000) + limits::TFTP_SILENCE_MAX));
            }
            transfer.handle_timeout(at(84_999));
            assert_eq!(transfer.poll_output(), None);
            transfer.handle_timeout(at(85_000));
            assert_eq!(transfer.poll_output(), Some(Output::Finished(Outcome::PeerSilent)));
        }
    }

    #[test]
    fn a_transfer_has_a_deadline_by_its_size() {
        let mut transfer = transfer(64 * 1_024 * 10, Options::default());
        transfer.poll_output();
        let deadline = limits::TFTP_DEADLINE_BASE + Duration::from_secs(10);
        transfer.handle_timeout(deadline - at(1));
        assert!(matches!(transfer.poll_output(), Some(Output::Blocks(_))));
        transfer.handle_timeout(deadline);
        assert_eq!(transfer.poll_output(), Some(Output::Finished(Outcome::TooSlow)));
    }

    #[test]
    fn a_size_question_and_a_refusal_end_quietly() {
        let mut question = transfer(9, Options { transfer_bytes: Some(0), ..Options::default() });
        question.poll_output();
        question.handle_datagram(at(1), PEER, Control::error(ErrorCode::OptionRefused).as_bytes()).unwrap();
        assert_eq!(question.poll_output(), Some(Output::Finished(Outcome::Aborted(ErrorCode::OptionRefused))));
        let mut refused = transfer(9, Options::default());
        refused.refuse(ErrorCode::NotDefined);
        assert!(matches!(refused.poll_output(), Some(Output::Control(_))));
        assert_eq!(refused.poll_output(), Some(Output::Finished(Outcome::Refused(ErrorCode::NotDefined))));
    }
}
