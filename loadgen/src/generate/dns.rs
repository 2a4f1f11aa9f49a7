//! DNS: questions about names from a list, over many sockets, each answer checked.
//!
//! A question's identity is its socket (a port of the kernel's choice) and its number; both lead to one row of a flat table
//! without a search: row `r` belongs to socket `r mod sockets`, and the lower bits of the number are `r / sockets`, the upper
//! ones change with every use of the row, so that a late answer is told from the current one.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use bootstorm_driver::socket;
use bootstorm_proto::dns::answer::Response;
use bootstorm_proto::dns::query::{Recursion, header, write_question};
use bootstorm_proto::dns::{HEADER_BYTES, RecordType, ResponseCode};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::ready::{Interest, Ready};
use super::{Clock, Error, Outcome, Pace, recorder};
use crate::limits;
use crate::report::Recorder;
use crate::schedule::Sequence;

/// What is timed.
pub const STAGES: &[&str] = &["query"];
const QUERY: usize = 0;

/// How the first label of a name begins that is made up and does not exist.
pub const NONEXISTENT_PREFIX: &str = "nx-";

/// Where names come from.
#[derive(Clone, Debug)]
pub enum Names {
    /// A file of lines `NAME TYPE`, as dnsperf takes it.
    File(PathBuf),
    /// `h0.ZONE` to `hN.ZONE`, type A.
    Synthetic {
        /// How many.
        count: u32,
        /// Below which name.
        zone: String,
    },
}

/// How questions are begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// So many a second, by due time.
    Rate(f64),
    /// So many outstanding all the time.
    Outstanding(u32),
}

/// What is to be played.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server.
    pub server: SocketAddr,
    /// What is asked about.
    pub names: Names,
    /// How much.
    pub load: Load,
    /// For how long.
    pub duration: Duration,
    /// Share of the questions, 0 to 1, about names that do not exist.
    pub nonexistent: f64,
    /// Below which name those are.
    pub zone: String,
    /// Whether names are taken in the order of a lottery instead of in turn.
    pub random: bool,
    /// Whether the server is asked to find out what it does not know.
    pub recursion: Recursion,
    /// Sockets.
    pub sockets: u32,
    /// Time after which a question is lost.
    pub lost_after: Duration,
    /// Decides names, where a lottery does.
    pub seed: u64,
}

/// Questions as octets, one after the other.
struct Questions {
    octets: Vec<u8>,
    ends: Vec<u32>,
}

impl Questions {
    fn new() -> Questions {
        Questions { octets: Vec::new(), ends: Vec::new() }
    }

    fn add(&mut self, name: &str, record_type: RecordType) -> Result<(), Error> {
        let mut buffer = [0; limits::QUESTION_BYTES_MAX];
        let length = write_question(name, record_type, &mut buffer)
            .map_err(|error| Error::Settings(format!("name `{}`: {error}", name.escape_debug())))?;
        self.octets.extend_from_slice(&buffer[..length]);
        self.ends.push(u32::try_from(self.octets.len()).map_err(|_| Error::Settings("too many names".to_owned()))?);
        Ok(())
    }

    fn read(names: &Names) -> Result<Questions, Error> {
        let mut questions = Questions::new();
        match names {
            Names::Synthetic { count, zone } => {
                for index in 0..*count {
                    questions.add(&format!("h{index}.{zone}"), RecordType::A)?;
                }
            }
            Names::File(path) => {
                let told = |source| Error::File { path: path.display().to_string(), source };
                for line in fs::read_to_string(path).map_err(told)?.lines() {
                    let mut words = line.split_ascii_whitespace();
                    let Some(name) = words.next().filter(|name| !name.starts_with([';', '#'])) else { continue };
                    let kind = words.next().unwrap_or("A");
                    let Some(kind) = RecordType::from_name(kind) else {
                        let kind = kind.escape_debug();
                        return Err(Error::Settings(format!(
                            "record type `{kind}` is not known: use such as A, AAAA, SRV"
                        )));
                    };
                    questions.add(name, kind)?;
                }
            }
        }
        if questions.ends.is_empty() {
            return Err(Error::Settings("there are no names to ask about".to_owned()));
        }
        Ok(questions)
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn question(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.octets[start..self.ends[index] as usize]
    }
}

/// A row: a question that is outstanding, or none.
#[derive(Clone, Copy, Default)]
struct Row {
    is_outstanding: bool,
    /// Grows with each use.
    uses: u16,
    expects_name: bool,
    question: u32,
    due: Duration,
    begun: Duration,
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
    questions: Questions,
    /// Those about names that do not exist.
    nonexistent: Questions,
    sockets: Vec<UdpSocket>,
    ready: Ready,
    rows: Vec<Row>,
    free: Vec<u32>,
    /// Bits of a number that tell the row.
    row_bits: u32,
    /// Absent in a closed loop.
    pace: Option<Pace>,
    random: Sequence,
    turn: usize,
    next_look: Duration,
    recorder: Recorder,
    started: u64,
    done: u64,
}

impl<'a> Generator<'a> {
    fn new(settings: &'a Settings) -> Result<Generator<'a>, Error> {
        let questions = Questions::read(&settings.names)?;
        let mut nonexistent = Questions::new();
        for index in 0..limits::NONEXISTENT_NAMES {
            nonexistent.add(&format!("{NONEXISTENT_PREFIX}{index}.{}", settings.zone), RecordType::A)?;
        }
        let wanted = match settings.load {
            Load::Outstanding(outstanding) => outstanding,
            // All that can be outstanding before it is lost.
            Load::Rate(rate) => (rate * settings.lost_after.as_secs_f64()).ceil() as u32 + 1,
        };
        let sockets_count = settings.sockets.min(wanted);
        let rows = wanted.min(sockets_count << limits::QUESTION_ROW_BITS_MAX);
        let per_socket = rows.div_ceil(sockets_count);
        let ready = Ready::new()?;
        let told = |source| Error::Socket { what: "making a UDP socket", source };
        let mut sockets = Vec::new();
        for number in 0..u64::from(sockets_count) {
            let local: SocketAddr = if settings.server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = UdpSocket::bind(local).map_err(told)?;
            socket.connect(settings.server).map_err(told)?;
            socket::set_receive_buffer(socket.as_fd(), limits::GENERATOR_SOCKET_BYTES).map_err(told)?;
            ready.add(&socket, number, Interest::Read)?;
            sockets.push(socket);
        }
        let pace = match settings.load {
            Load::Rate(rate) => Some(Pace::new(rate, settings.duration)),
            Load::Outstanding(_) => None,
        };
        let mut random = Sequence::new(settings.seed);
        // Numbers begin anywhere, so that two runs do not take each other's answers for their own.
        let rows = (0..rows).map(|_| Row { uses: random.next() as u16, ..Row::default() }).collect::<Vec<_>>();
        Ok(Generator {
            settings,
            questions,
            nonexistent,
            sockets,
            ready,
            free: (0..rows.len() as u32).rev().collect(),
            rows,
            row_bits: per_socket.next_power_of_two().ilog2(),
            pace,
            random,
            turn: 0,
            next_look: Duration::ZERO,
            recorder: recorder(STAGES, settings.duration),
            started: 0,
            done: 0,
        })
    }

    fn run(&mut self, clock: &mut Clock) -> Result<(), Error> {
        let end = self.settings.duration;
        let mut is_ending = false;
        loop {
            let now = clock.now();
            clock.show(now, &self.recorder);
            is_ending |= clock.is_stopped() || (self.pace.is_none() && now >= end);
            if is_ending && let Some(pace) = &mut self.pace {
                pace.end();
            }
            let is_waiting_for_row = self.start(clock, is_ending)?;
            let now = clock.now();
            if now >= self.next_look {
                self.expire(now);
                self.next_look = now + self.settings.lost_after / LOOKS_PER_LOSS;
            }
            let next_start = self.pace.as_ref().and_then(Pace::next_due);
            is_ending |= self.pace.is_some() && next_start.is_none();
            let is_idle = self.free.len() == self.rows.len();
            if is_ending && is_idle {
                return Ok(());
            }
            let next_start = next_start.filter(|_| !is_waiting_for_row);
            let next = next_start.into_iter().fold(self.next_look, Duration::min);
            self.ready.wait(Some(next.saturating_sub(now)))?;
            for index in 0..self.ready.count() {
                self.receive(self.ready.number(index) as usize, clock)?;
            }
        }
    }

    /// Asks what is due, or what there is room for; whether something is due that there is no room for.
    fn start(&mut self, clock: &Clock, is_ending: bool) -> Result<bool, Error> {
        for _ in 0..limits::BURST_MESSAGES {
            if self.free.is_empty() {
                return Ok(true);
            }
            let now = clock.now();
            let due = match &mut self.pace {
                Some(pace) => match pace.take(now) {
                    Some((_, due)) => due,
                    None => return Ok(false),
                },
                None if is_ending => return Ok(false),
                None => now,
            };
            self.ask(now, due)?;
        }
        Ok(false)
    }

    fn ask(&mut self, now: Duration, due: Duration) -> Result<(), Error> {
        let Some(index) = self.free.pop() else { return Ok(()) };
        let expects_name = self.settings.nonexistent == 0.0 || self.random.fraction() >= self.settings.nonexistent;
        let list = if expects_name { &self.questions } else { &self.nonexistent };
        let question = if self.settings.random || !expects_name {
            (self.random.next() % list.len() as u64) as usize
        } else {
            self.turn = (self.turn + 1) % list.len();
            self.turn
        };
        let row = &mut self.rows[index as usize];
        let uses = row.uses.wrapping_add(1);
        *row = Row { is_outstanding: true, uses, expects_name, question: question as u32, due, begun: now };
        let (socket, place) = (index as usize % self.sockets.len(), index as usize / self.sockets.len());
        let id = number(place, uses, self.row_bits);
        let octets = list.question(question);
        let mut message = [0; HEADER_BYTES + limits::QUESTION_BYTES_MAX];
        let length = HEADER_BYTES + octets.len();
        message[..HEADER_BYTES].copy_from_slice(&header(id, self.settings.recursion));
        message[HEADER_BYTES..length].copy_from_slice(octets);
        self.started += 1;
        match send(&self.sockets[socket], &message[..length], SendFlags::DONTWAIT) {
            Ok(_) => Ok(()),
            // What the kernel has no room for is lost on its way; a refusal is of an earlier question.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::CONNREFUSED) => Ok(()),
            Err(errno) => Err(Error::socket("sending a question")(errno)),
        }
    }

    fn receive(&mut self, socket: usize, clock: &Clock) -> Result<(), Error> {
        let mut message = [0; bootstorm_proto::limits::DNS_MESSAGE_BYTES_MAX];
        for _ in 0..limits::BURST_MESSAGES {
            match recv(&self.sockets[socket], &mut message, RecvFlags::DONTWAIT) {
                Ok((length, _)) => self.handle(clock.now(), socket, &message[..length]),
                Err(Errno::AGAIN | Errno::INTR | Errno::CONNREFUSED) => return Ok(()),
                Err(errno) => return Err(Error::socket("receiving an answer")(errno)),
            }
        }
        Ok(())
    }

    fn handle(&mut self, now: Duration, socket: usize, message: &[u8]) {
        // Without its number an answer belongs to nobody.
        let Some(id) = message.first_chunk::<2>().map(|octets| u16::from_be_bytes(*octets)) else { return };
        let place = usize::from(id & ((1 << self.row_bits) - 1) as u16);
        let index = place * self.sockets.len() + socket;
        let Some(row) = self.rows.get_mut(index).filter(|row| row.is_outstanding) else { return };
        if number(place, row.uses, self.row_bits) != id {
            return;
        }
        let list = if row.expects_name { &self.questions } else { &self.nonexistent };
        let expected = if row.expects_name { ResponseCode::NoError } else { ResponseCode::NameError };
        let failure = match Response::parse(message) {
            Err(reason) => Some(reason.name()),
            Ok(response) if !response.is_about(list.question(row.question as usize)) => Some("another question"),
            Ok(response) if response.is_truncated => Some("truncated"),
            Ok(response) if response.code != expected => Some(response.code.name()),
            Ok(_) => None,
        };
        row.is_outstanding = false;
        self.free.push(index as u32);
        match failure {
            Some(reason) => self.recorder.failed_exchange(now, QUERY, reason),
            None => {
                self.done += 1;
                self.recorder.exchange(now, QUERY, now.saturating_sub(row.due));
            }
        }
    }

    /// Counts what has waited too long.
    fn expire(&mut self, now: Duration) {
        for (index, row) in self.rows.iter_mut().enumerate() {
            if row.is_outstanding && row.begun + self.settings.lost_after <= now {
                row.is_outstanding = false;
                self.free.push(index as u32);
                self.recorder.failed_exchange(now, QUERY, "lost");
            }
        }
    }
}

/// The table is looked through so many times in the time after which a question is lost.
const LOOKS_PER_LOSS: u32 = 8;

/// The number of the question in this place of a socket's rows, at this use.
fn number(place: usize, uses: u16, row_bits: u32) -> u16 {
    place as u16 | uses.checked_shl(row_bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_a_list_and_made_up() {
        let made = Questions::read(&Names::Synthetic { count: 2, zone: "example".to_owned() }).unwrap();
        assert_eq!((made.len(), made.question(1)), (2, &b"\x02h1\x07example\0\0\x01\0\x01"[..]));
        let file = std::env::temp_dir().join(format!("loadgen-names-{}", std::process::id()));
        fs::write(&file, "; a comment\n\na.example AAAA\nb.example\n").unwrap();
        let read = Questions::read(&Names::File(file.clone())).unwrap();
        assert_eq!((read.len(), read.question(0)), (2, &b"\x01a\x07example\0\0\x1c\0\x01"[..]));
        fs::write(&file, "a.example NONSENSE\n").unwrap();
        assert!(Questions::read(&Names::File(file.clone())).is_err());
        fs::remove_file(file).unwrap();
        assert!(Questions::read(&Names::Synthetic { count: 0, zone: "x".to_owned() }).is_err());
    }

    #[test]
    fn a_number_tells_its_place_and_changes_with_use() {
        for bits in [0, 1, 9, 15] {
            let place = (1 << bits) - 1;
            let numbers: Vec<u16> = (0..1u16 << (16 - bits).min(4)).map(|uses| number(place, uses, bits)).collect();
            assert!(numbers.iter().all(|id| usize::from(*id) & ((1 << bits) - 1) == place), "{bits}");
            assert!(numbers.windows(2).all(|pair| pair[0] != pair[1]), "{bits}");
        }
    }
}
