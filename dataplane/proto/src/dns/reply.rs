//! Answers as a server writes them: header and question first, then sections in their order, then the OPT record, for which room
//! is kept from the start.

use super::HEADER_BYTES;
use super::request::{COOKIE, OPT, Request};
use crate::bytes::{Full, Writer};
use crate::limits;

/// Octets of our cookie in an answer (RFC 9018 §4): version 1, reserved 3, seconds 4, hash 8.
pub const SERVER_COOKIE_BYTES: usize = 16;
/// Octets of an OPT record without options.
const OPT_BYTES: usize = 11;
/// Where the question's name begins; as a pointer it stands for the owner of what was asked for.
pub const NAME_OFFSET: u16 = HEADER_BYTES as u16;

/// A section of records, in their order (RFC 1035 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What was asked for.
    Answer,
    /// Who has authority, or that there is nothing.
    Authority,
    /// What helps.
    Additional,
}

/// Whether the answer is from a zone that we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// It is (AA).
    Ours,
    /// It names who has it, or nothing.
    Elsewhere,
}

/// An answer being written into a caller's buffer.
pub struct Reply<'a> {
    writer: Writer<'a>,
    counts: [u16; 3],
    question_end: usize,
    /// Flags that repeat the request's.
    flags: [u8; 2],
    edns: Option<Opt>,
}

/// The OPT record to come.
#[derive(Debug, Clone, Copy)]
struct Opt {
    dnssec_ok: bool,
    cookie: Option<[u8; 8 + SERVER_COOKIE_BYTES]>,
}

impl Opt {
    fn bytes(&self) -> usize {
        OPT_BYTES + self.cookie.map_or(0, |cookie| 4 + cookie.len())
    }
}

impl<'a> Reply<'a> {
    /// Begins the answer to a request in a buffer, of which as much is used as the asker takes and
    /// [`limits::DNS_REPLY_BYTES_MAX`] allows. `cookie` is ours for this asker; it is sent only to one that has sent its own.
    ///
    /// # Errors
    /// When the buffer is too small for the question.
    pub fn begin(
        request: &Request<'_>,
        cookie: Option<[u8; SERVER_COOKIE_BYTES]>,
        buffer: &'a mut [u8],
    ) -> Result<Reply<'a>, DoesNotFit> {
        let edns = request.edns.map(|edns| Opt {
            dnssec_ok: edns.dnssec_ok,
            cookie: edns.cookie.zip(cookie).map(|((client, _), server)| {
                let mut both = [0; 8 + SERVER_COOKIE_BYTES];
                let (first, second) = both.split_at_mut(8);
                first.copy_from_slice(client);
                second.copy_from_slice(&server);
                both
            }),
        });
        // RFC 6891 §6.2.3: below 512 means 512.
        let taken = request.edns.map_or(limits::DNS_PLAIN_BYTES_MAX, |edns| {
            usize::from(edns.payload_bytes).clamp(limits::DNS_PLAIN_BYTES_MAX, limits::DNS_REPLY_BYTES_MAX)
        });
        let room = taken.min(buffer.len()).checked_sub(edns.map_or(0, |opt| opt.bytes())).ok_or(DoesNotFit)?;
        // The OPT record's room lies behind what this writer may fill; `finish` takes it.
        let mut writer = Writer::new(buffer);
        writer.limit(room);
        let [a, b] = request.id.to_be_bytes();
        let flags = [0x80 | u8::from(request.recursion_desired), u8::from(request.checking_disabled) << 4];
        writer.put(&[a, b, flags[0], flags[1], 0, 1, 0, 0, 0, 0, 0, 0])?;
        writer.put(request.question)?;
        let question_end = writer.len();
        Ok(Reply { writer, counts: [0; 3], question_end, flags, edns })
    }

    /// Octets so far: where the next record begins.
    pub fn len(&self) -> usize {
        self.writer.len()
    }

    /// Whether nothing but the question is in it.
    pub fn is_empty(&self) -> bool {
        self.counts == [0; 3]
    }

    /// Adds a record of `section`: a pointer to its owner, then `tail` (type, class, lifetime, length, data).
    ///
    /// # Errors
    /// When it does not fit; nothing of it was written then.
    #[inline]
    pub fn record(&mut self, section: Section, owner: u16, tail: &[u8]) -> Result<(), DoesNotFit> {
        let before = self.writer.len();
        let written = self.writer.put(&pointer(owner)).and_then(|()| self.writer.put(tail));
        self.close(section, before, written)
    }

    /// The same with data in pieces: `head` (type, class, lifetime), then the length, then the pieces in a row.
    ///
    /// # Errors
    /// As [`Reply::record`].
    pub fn record_of(
        &mut self,
        section: Section,
        owner: u16,
        head: &[u8],
        pieces: &[Piece<'_>],
    ) -> Result<(), DoesNotFit> {
        let before = self.writer.len();
        let written = (|| {
            self.writer.put(&pointer(owner))?;
            self.writer.put(head)?;
            let length_at = self.writer.len();
            self.writer.put(&[0, 0])?;
            for piece in pieces {
                match piece {
                    Piece::Octets(octets) => self.writer.put(octets)?,
                    Piece::Pointer(offset) => self.writer.put(&pointer(*offset))?,
                }
            }
            let length = self.writer.len() - length_at - 2;
            self.writer.patch_u16(length_at, u16::try_from(length).map_err(|_| Full)?)
        })();
        self.close(section, before, written)
    }

    #[inline]
    fn close(&mut self, section: Section, before: usize, written: Result<(), Full>) -> Result<(), DoesNotFit> {
        if written.is_err() {
            self.writer.truncate(before);
            return Err(DoesNotFit);
        }
        if let Some(count) = self.counts.get_mut(section as usize) {
            *count += 1;
        }
        Ok(())
    }

    /// Takes all records back and says that they did not fit (TC): who asks comes again by another way (RFC 2181 §9).
    pub fn truncate(&mut self) {
        self.writer.truncate(self.question_end);
        self.counts = [0; 3];
        self.flags[0] |= 0x02;
    }

    /// Leaves our cookie out, so that the answer is no longer than the question was.
    pub fn without_cookie(&mut self) {
        if let Some(opt) = &mut self.edns {
            opt.cookie = None;
        }
    }

    /// Ends it: code (its upper bits go to the OPT record; RFC 6891 §6.1.3), authority, counts. Gives its octets.
    pub fn finish(mut self, code: u8, authority: Authority) -> usize {
        if let Some(opt) = self.edns {
            self.writer.unlimit();
            let [size_high, size_low] = (limits::DNS_REPLY_BYTES_MAX as u16).to_be_bytes();
            let flags = if opt.dnssec_ok { 0x80 } else { 0 };
            let [type_high, type_low] = OPT.to_be_bytes();
            let length = (opt.bytes() - OPT_BYTES) as u8;
            let head = [0, type_high, type_low, size_high, size_low, code >> 4, 0, flags, 0, 0, length];
            // Its room was kept; and without it the answer would be right for nobody who asked for it.
            let mut written = self.writer.put(&head);
            if let Some(cookie) = opt.cookie {
                let [code_high, code_low] = COOKIE.to_be_bytes();
                let option = [code_high, code_low, 0, cookie.len() as u8];
                written = written.and_then(|()| self.writer.put(&option)).and_then(|()| self.writer.put(&cookie));
            }
            debug_assert!(written.is_ok(), "room is kept for the OPT record");
            self.counts[2] += 1;
        }
        let authoritative = if authority == Authority::Ours { 0x04 } else { 0 };
        let [answers, authorities, additionals] = self.counts;
        let flags = u16::from_be_bytes([self.flags[0] | authoritative, self.flags[1] | code & 15]);
        for (at, value) in [(2, flags), (6, answers), (8, authorities), (10, additionals)] {
            let patched = self.writer.patch_u16(at, value);
            debug_assert!(patched.is_ok(), "the header is there");
        }
        self.writer.len()
    }
}

/// A piece of a record's data.
#[derive(Debug, Clone, Copy)]
pub enum Piece<'a> {
    /// As they are.
    Octets(&'a [u8]),
    /// The rest of a name is at this offset of the message.
    Pointer(u16),
}

/// What was to be written has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("answer does not fit")]
pub struct DoesNotFit;

impl From<Full> for DoesNotFit {
    fn from(Full: Full) -> DoesNotFit {
        DoesNotFit
    }
}

/// A pointer to an offset (RFC 1035 §4.1.4), which is below 16,384 in any message of ours.
#[inline]
fn pointer(offset: u16) -> [u8; 2] {
    (0xc000 | offset).to_be_bytes()
}
