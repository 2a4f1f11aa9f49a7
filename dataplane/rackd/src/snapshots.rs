//! The snapshot on disk and on its way in.
//!
//! ```text
//! DIR/base-GEN    "BSSNAPB1", frames; made whole under another name and renamed
//! DIR/delta-GEN   "BSSNAPD1", the base's BLAKE3 (32), frames; appended to, one sync per generation
//!
//! frame   payload bytes u32 | 1 if last of its generation, else 0, u32 | generation u64 | first 16 octets of the BLAKE3 of
//!         the 16 before and the payload | payload: one zstd frame of JSON lines
//! ```
//! Integers are little-endian; GEN is the base's generation in 16 hexadecimal digits. A generation counts when its last frame
//! is whole; what follows the last whole one is cut off. A delta log belongs to the base whose digest it names.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bootstorm_snapshot::limits::FRAME_BYTES_MAX;
use bootstorm_snapshot::record::Line;
use bootstorm_snapshot::{Generation, View, codec};

use crate::{Error, limits};

const BASE_MAGIC: &[u8; 8] = b"BSSNAPB1";
const DELTA_MAGIC: &[u8; 8] = b"BSSNAPD1";
const DELTA_HEAD_BYTES: u64 = 40;
const FRAME_HEAD_BYTES: usize = 32;
const LEVEL: i32 = 3;

/// The snapshot's directory and the view in it.
#[derive(Debug)]
pub(crate) struct Snapshots {
    directory: PathBuf,
    view: View,
    base: Option<Base>,
}

#[derive(Debug)]
struct Base {
    generation: Generation,
    digest: [u8; 32],
    bytes: u64,
    /// The delta log, once there is one, and its length.
    delta: Option<(File, u64)>,
}

/// Writes a view as the base in `directory` that a rack starts from while control is away: for tests and benches, which have no
/// control to publish what they need.
///
/// # Errors
/// When it cannot be written.
pub fn write_base(directory: &Path, view: View) -> Result<(), Error> {
    Snapshots::open(directory)?.commit(view, None)
}

impl Snapshots {
    /// Opens the directory (made if missing) and rebuilds the last whole generation in it. What cannot be read is left
    /// out, never guessed: control sends it again.
    pub(crate) fn open(directory: &Path) -> Result<Snapshots, Error> {
        fs::create_dir_all(directory).map_err(Error::file("making directory", directory))?;
        let mut snapshots = Snapshots { directory: directory.to_path_buf(), view: View::default(), base: None };
        let mut generations = Vec::new();
        for entry in fs::read_dir(directory).map_err(Error::file("listing", directory))? {
            let name = entry.map_err(Error::file("listing", directory))?.file_name();
            generations.extend(name.to_str().and_then(|name| parse_name("base-", name)));
        }
        generations.sort_unstable();
        for generation in generations.into_iter().rev() {
            match snapshots.load(generation) {
                Ok(()) => break,
                Err(error) => tracing::warn!(%generation, %error, "a base of the snapshot is not usable"),
            }
        }
        Ok(snapshots)
    }

    /// The view in force.
    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    fn load(&mut self, generation: Generation) -> io::Result<()> {
        let bytes = read_bounded(&self.path("base-", generation))?;
        let frames = bytes.strip_prefix(BASE_MAGIC).ok_or_else(|| invalid("no base"))?;
        let view = read_base(frames).filter(|view| view.generation == generation);
        let mut view = view.ok_or_else(|| invalid("cut short or damaged"))?;
        let digest = *blake3::hash(&bytes).as_bytes();
        let delta = self.load_delta(generation, digest, &mut view)?;
        self.view = view;
        self.base = Some(Base { generation, digest, bytes: bytes.len() as u64, delta });
        Ok(())
    }

    /// Applies the delta log of a base and cuts off what is not whole.
    fn load_delta(&self, generation: Generation, digest: [u8; 32], view: &mut View) -> io::Result<Option<(File, u64)>> {
        let path = self.path("delta-", generation);
        let bytes = match read_bounded(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let named = bytes.strip_prefix(DELTA_MAGIC).and_then(|rest| rest.strip_prefix(&digest));
        let Some(frames) = named else {
            fs::remove_file(&path)?;
            return Ok(None);
        };
        let used = apply_frames(frames, view);
        let length = DELTA_HEAD_BYTES + used as u64;
        let file = File::options().append(true).open(&path)?;
        if used != frames.len() {
            tracing::warn!(bytes = frames.len() - used, "the end of the snapshot's log is not whole and is cut off");
            file.set_len(length)?;
            file.sync_all()?;
        }
        Ok(Some((file, length)))
    }

    /// Makes `next` durable, then the view in force. `lines` lead from the view in force to it; without them a new base is
    /// written.
    pub(crate) fn commit(&mut self, next: View, lines: Option<&[Line]>) -> Result<(), Error> {
        match lines {
            Some(lines) if !self.is_base_due() => self.append(next.generation, lines)?,
            Some(_) | None => self.rebase(&next)?,
        }
        self.view = next;
        Ok(())
    }

    fn is_base_due(&self) -> bool {
        let Some(base) = &self.base else { return true };
        base.delta.as_ref().is_some_and(|(_, bytes)| *bytes > limits::DELTA_BYTES_MIN.max(2 * base.bytes))
    }

    fn append(&mut self, generation: Generation, lines: &[Line]) -> Result<(), Error> {
        let frames = encode_frames(generation, lines).map_err(Error::system("compressing the snapshot"))?;
        let Some(base_generation) = self.base.as_ref().map(|base| base.generation) else { return Ok(()) };
        let path = self.path("delta-", base_generation);
        let directory = self.directory.clone();
        let Some(base) = &mut self.base else { return Ok(()) };
        let written = (|| -> io::Result<()> {
            if base.delta.is_none() {
                let mut file = File::create(&path)?;
                file.write_all(&[&DELTA_MAGIC[..], &base.digest].concat())?;
                file.sync_all()?;
                sync_directory(&directory)?;
                base.delta = Some((File::options().append(true).open(&path)?, DELTA_HEAD_BYTES));
            }
            let Some((file, length)) = &mut base.delta else { return Ok(()) };
            let written = file.write_all(&frames).and_then(|()| file.sync_data());
            if written.is_err() {
                // Half a frame must not stand in front of the next one.
                file.set_len(*length)?;
            } else {
                *length += frames.len() as u64;
            }
            written
        })();
        written.map_err(Error::file("appending to", &path))
    }

    fn rebase(&mut self, next: &View) -> Result<(), Error> {
        let frames = encode_frames(next.generation, &next.base()).map_err(Error::system("compressing the snapshot"))?;
        let bytes = [&BASE_MAGIC[..], &frames].concat();
        let path = self.path("base-", next.generation);
        let temporary = path.with_extension("tmp");
        let written = (|| -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            sync_directory(&self.directory)
        })();
        written.map_err(Error::file("writing", &path))?;
        let digest = *blake3::hash(&bytes).as_bytes();
        self.base = Some(Base { generation: next.generation, digest, bytes: bytes.len() as u64, delta: None });
        self.remove_others(next.generation).map_err(Error::file("tidying", &self.directory))
    }

    /// Removes every file that does not belong to the new base; its own delta log can only be an older one's.
    fn remove_others(&self, generation: Generation) -> io::Result<()> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let kept = name.to_str().and_then(|name| parse_name("base-", name)) == Some(generation);
            if !kept && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
        sync_directory(&self.directory)
    }

    fn path(&self, prefix: &str, generation: Generation) -> PathBuf {
        self.directory.join(format!("{prefix}{:016x}", generation.0))
    }
}

fn parse_name(prefix: &str, name: &str) -> Option<Generation> {
    let digits = name.strip_prefix(prefix).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(Generation)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limits::SNAPSHOT_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limits::SNAPSHOT_FILE_BYTES_MAX { Err(invalid("too long")) } else { Ok(bytes) }
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The frames of one generation; at least one, also for no lines.
fn encode_frames(generation: Generation, lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut payloads = vec![Vec::new()];
    for line in lines {
        let mut text = Vec::new();
        codec::encode_line(line, &mut text);
        match payloads.last_mut() {
            Some(payload) if payload.len() + text.len() <= FRAME_BYTES_MAX => payload.extend_from_slice(&text),
            Some(_) | None => payloads.push(text),
        }
    }
    let mut out = Vec::new();
    let count = payloads.len();
    for (index, payload) in payloads.into_iter().enumerate() {
        let packed = zstd::bulk::compress(&payload, LEVEL)?;
        let length = u32::try_from(packed.len()).map_err(|_| invalid("frame too long"))?;
        let mut head = length.to_le_bytes().to_vec();
        head.extend_from_slice(&u32::from(index + 1 == count).to_le_bytes());
        head.extend_from_slice(&generation.0.to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(checksum(&head, &packed).get(..16).unwrap_or_default());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

fn checksum(head: &[u8], payload: &[u8]) -> [u8; 32] {
    *blake3::Hasher::new().update(head).update(payload).finalize().as_bytes()
}

/// The view of a base, whose frames are applied one by one: all of a large site's lines at a time would be far more memory than
/// the view itself.
fn read_base(bytes: &[u8]) -> Option<View> {
    let mut view = View::default();
    let mut at = 0;
    loop {
        let (generation, last, lines, length) = bytes.get(at..).and_then(read_frame)?;
        at += length;
        lines.into_iter().for_each(|line| view.apply(line));
        if last {
            view.generation = generation;
            return (at == bytes.len()).then_some(view);
        }
    }
}

/// Applies whole generations; gives the octets they take.
fn apply_frames(bytes: &[u8], view: &mut View) -> usize {
    let (mut used, mut at) = (0, 0);
    let mut pending = Vec::new();
    while let Some((generation, last, lines, length)) = bytes.get(at..).and_then(read_frame) {
        at += length;
        pending.extend(lines);
        if last {
            pending.drain(..).for_each(|line| view.apply(line));
            view.generation = generation;
            used = at;
        }
    }
    used
}

/// One frame: generation, whether it is its last, lines, octets; `None` if it is not whole.
fn read_frame(bytes: &[u8]) -> Option<(Generation, bool, Vec<Line>, usize)> {
    let head = bytes.get(..16)?;
    let (length, rest) = head.split_first_chunk::<4>()?;
    let (last, generation) = rest.split_first_chunk::<4>()?;
    let generation = Generation(u64::from_le_bytes(generation.try_into().ok()?));
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let end = FRAME_HEAD_BYTES.checked_add(length)?;
    let payload = bytes.get(FRAME_HEAD_BYTES..end)?;
    if checksum(head, payload).get(..16) != bytes.get(16..FRAME_HEAD_BYTES) {
        return None;
    }
    let text = zstd::bulk::decompress(payload, FRAME_BYTES_MAX).ok()?;
    Some((generation, u32::from_le_bytes(*last) == 1, codec::decode_lines(&text).ok()?, end))
}

/// What a part of a transfer led to.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// More parts are to come.
    More,
    /// The transfer is whole: the view, and its lines if they lead on from the view in force.
    Whole(Box<View>, Option<Vec<Line>>),
    /// It does not fit what is served: control must begin again from what the status says.
    Resynchronise(&'static str),
}

/// A snapshot on its way in.
#[derive(Debug, Default)]
pub(crate) struct Transfer {
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    generation: Generation,
    from: Option<Generation>,
    lines: Vec<Line>,
}

impl Transfer {
    /// Forgets what has come: the stream it came by is gone.
    pub(crate) fn abandon(&mut self) {
        self.pending = None;
    }

    /// Takes one part. `packed` is its zstd frame.
    pub(crate) fn take(
        &mut self,
        view: &View,
        (generation, from): (Generation, Option<Generation>),
        (first, last): (bool, bool),
        packed: &[u8],
    ) -> Step {
        if first {
            self.pending = Some(Pending { generation, from, lines: Vec::new() });
        }
        let Some(pending) = &mut self.pending else { return Step::More };
        let outcome = pending.take(view, (generation, from), packed);
        if let Err(why) = outcome {
            self.pending = None;
            return Step::Resynchronise(why);
        }
        if !last {
            return Step::More;
        }
        let Some(Pending { generation, from, lines }) = self.pending.take() else { return Step::More };
        let mut next = if from.is_some() { view.clone() } else { View::default() };
        lines.iter().cloned().for_each(|line| next.apply(line));
        next.generation = generation;
        Step::Whole(Box::new(next), from.map(|_| lines))
    }
}

impl Pending {
    fn take(
        &mut self,
        view: &View,
        transfer: (Generation, Option<Generation>),
        packed: &[u8],
    ) -> Result<(), &'static str> {
        if transfer != (self.generation, self.from) {
            return Err("parts of two transfers are mixed");
        }
        if self.from.is_some_and(|from| from != view.generation || self.generation <= from) {
            return Err("the transfer starts from another generation than the one served");
        }
        let text =
            zstd::bulk::decompress(packed, FRAME_BYTES_MAX).map_err(|_| "a part is no zstd frame within bounds")?;
        let lines = codec::decode_lines(&text).map_err(|_| "a line cannot be read")?;
        if lines.iter().any(|line| line.generation > self.generation) {
            return Err("a line is of a later generation than its transfer");
        }
        if self.lines.len() + lines.len() > limits::TRANSFER_LINES_MAX {
            return Err("too many lines");
        }
        self.lines.extend(lines);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bootstorm_snapshot::record::{Record, Site, Unknown};

    fn view(generation: u64) -> View {
        let mut view = View { generation: Generation(generation), ..View::default() };
        view.put(Record::Site(Site {
            ca_pem: format!("ca of {generation}"),
            unknown: Unknown::Enlist,
            lease_seconds: 60,
            boot_lease_seconds: 60,
        }));
        view
    }

    fn pack(lines: &[Line]) -> Vec<u8> {
        let mut text = Vec::new();
        lines.iter().for_each(|line| codec::encode_line(line, &mut text));
        zstd::bulk::compress(&text, 1).expect("compressed")
    }

    #[test]
    fn the_last_whole_generation_survives_any_cut_of_the_log() {
        let directory = tempfile::tempdir().expect("directory");
        let mut snapshots = Snapshots::open(directory.path()).expect("opens");
        assert_eq!(snapshots.view().generation, Generation(0));
        snapshots.commit(view(1), None).expect("base");
        let mut lengths = vec![];
        for generation in 2..5 {
            let lines = view(generation - 1).delta(&view(generation));
            snapshots.commit(view(generation), Some(&lines)).expect("delta");
            lengths.push(snapshots.base.as_ref().and_then(|base| base.delta.as_ref()).map_or(0, |delta| delta.1));
        }
        let path = snapshots.path("delta-", Generation(1));
        let whole = fs::read(&path).expect("log");
        drop(snapshots);
        for end in (0..=whole.len()).rev().step_by(7) {
            fs::write(&path, &whole[..end]).expect("cut");
            let held = lengths.iter().filter(|length| **length <= end as u64).count() as u64;
            let reopened = Snapshots::open(directory.path()).expect("opens");
            assert_eq!(reopened.view(), &view(1 + held), "cut at {end}");
        }
        let mut damaged = whole.clone();
        let place = usize::try_from(lengths[0]).expect("small") + 40;
        damaged[place] ^= 1;
        fs::write(&path, &damaged).expect("damage");
        let mut reopened = Snapshots::open(directory.path()).expect("opens");
        assert_eq!(reopened.view(), &view(2));
        let lines = view(2).delta(&view(9));
        reopened.commit(view(9), Some(&lines)).expect("goes on");
        assert_eq!(Snapshots::open(directory.path()).expect("opens").view(), &view(9));
    }

    #[test]
    fn a_new_base_replaces_everything_and_a_damaged_one_is_not_guessed() {
        let directory = tempfile::tempdir().expect("directory");
        let mut snapshots = Snapshots::open(directory.path()).expect("opens");
        snapshots.commit(view(3), None).expect("base");
        snapshots.commit(view(4), Some(&view(3).delta(&view(4)))).expect("delta");
        snapshots.commit(view(2), None).expect("an older base");
        assert_eq!(fs::read_dir(directory.path()).expect("list").count(), 1);
        assert_eq!(Snapshots::open(directory.path()).expect("opens").view(), &view(2));
        let path = snapshots.path("base-", Generation(2));
        let mut bytes = fs::read(&path).expect("base");
        bytes.truncate(bytes.len() - 1);
        fs::write(&path, bytes).expect("cut");
        assert_eq!(Snapshots::open(directory.path()).expect("opens").view(), &View::default());
    }

    #[test]
    fn a_transfer_is_taken_whole_or_begun_again() {
        let mut transfer = Transfer::default();
        let (one, two) = (view(1), view(2));
        let base = pack(&one.base());
        let step = transfer.take(&View::default(), (Generation(1), None), (true, true), &base);
        assert_eq!(step, Step::Whole(Box::new(one.clone()), None));
        let delta = one.delta(&two);
        let ids = (Generation(2), Some(Generation(1)));
        assert_eq!(transfer.take(&one, ids, (true, false), &pack(&delta)), Step::More);
        assert_eq!(
            transfer.take(&one, ids, (false, true), &pack(&[])),
            Step::Whole(Box::new(two.clone()), Some(delta.clone()))
        );
        // A part without a beginning belongs to a transfer that was given up.
        assert_eq!(transfer.take(&one, ids, (false, true), &pack(&delta)), Step::More);
        for (view, ids, bytes) in [
            (&two, ids, pack(&delta)),
            (&one, (Generation(1), Some(Generation(1))), pack(&[])),
            (&one, ids, b"no zstd".to_vec()),
            (&one, ids, zstd::bulk::compress(b"{}\n", 1).expect("compressed")),
            (&one, ids, zstd::bulk::compress(&vec![b'\n'; FRAME_BYTES_MAX + 1], 1).expect("compressed")),
            (&one, (Generation(1), None), pack(&two.base())),
        ] {
            assert!(matches!(transfer.take(view, ids, (true, true), &bytes), Step::Resynchronise(_)), "{ids:?}");
        }
    }
}
