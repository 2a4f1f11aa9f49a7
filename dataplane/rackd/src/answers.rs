//! Whole answers to small requests that come again and again, head and body in one piece.
//!
//! Clients of one kind send the same octets for the same file: a thousand firmwares differ in nothing. Parsing is a pure
//! function of those octets and the answer one of them, the generation and the second (`Date`), so what was answered in this
//! second is sent again without looking at anything but the octets. Only what was answered with 200 and a whole file is kept.

use std::collections::HashMap;
use std::sync::Arc;

use bootstorm_driver::Sealed;
use bootstorm_engine::Index;
use bootstorm_snapshot::Stage;
use bytes::Bytes;

use crate::limits;

/// Head and body of an answer.
#[derive(Clone, Debug)]
pub(crate) enum Octets {
    /// To be copied into the socket.
    Copied(Bytes),
    /// To be referred to by the socket.
    Sealed(Sealed),
}

impl Octets {
    pub(crate) fn len(&self) -> usize {
        match self {
            Octets::Copied(bytes) => bytes.len(),
            Octets::Sealed(sealed) => sealed.len(),
        }
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) octets: Octets,
    /// Whether the connection closes after it.
    pub(crate) close: bool,
    /// The stage of a boot that fetching it shows.
    pub(crate) stage: Option<Stage>,
}

/// Answers of this second and generation, by the octets of their requests.
#[derive(Default)]
pub(crate) struct Answers {
    index: Option<Arc<Index>>,
    second: u64,
    held: HashMap<Box<[u8]>, Answer>,
    bytes: usize,
    /// Whether sealing has failed in this second.
    must_copy: bool,
}

impl Answers {
    /// The answer to exactly this request, if it was made in this second and from this index. A long one that is asked for a
    /// second time is sealed, and from there on no longer copied.
    pub(crate) fn find(&mut self, index: &Arc<Index>, second: u64, request: &[u8]) -> Option<Answer> {
        if !self.is_of(index, second) {
            return None;
        }
        let answer = self.held.get_mut(request)?;
        if let Octets::Copied(bytes) = &answer.octets
            && bytes.len() >= limits::ANSWER_SEALED_BYTES_MIN
            && !self.must_copy
        {
            match Sealed::new(bytes) {
                Ok(sealed) => answer.octets = Octets::Sealed(sealed),
                Err(error) => {
                    self.must_copy = true;
                    tracing::debug!(%error, "answers are copied for a second: one could not be sealed");
                }
            }
        }
        Some(answer.clone())
    }

    /// Keeps an answer, as far as there is room in this second.
    pub(crate) fn keep(&mut self, index: &Arc<Index>, second: u64, request: &[u8], answer: &Answer) {
        if !self.is_of(index, second) {
            self.held.clear();
            (self.index, self.second, self.bytes) = (Some(Arc::clone(index)), second, 0);
            self.must_copy = false;
        }
        let bytes = request.len() + answer.octets.len();
        if request.len() <= limits::ANSWER_REQUEST_BYTES_MAX && self.bytes + bytes <= limits::ANSWERS_BYTES_MAX {
            self.bytes += bytes;
            self.held.insert(request.into(), answer.clone());
        }
    }

    fn is_of(&self, index: &Arc<Index>, second: u64) -> bool {
        self.second == second && self.index.as_ref().is_some_and(|known| Arc::ptr_eq(known, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer { octets: Octets::Copied(vec![0; bytes].into()), close: false, stage: None }
    }

    #[test]
    fn an_answer_is_of_its_octets_its_second_and_its_generation() {
        let (index, other) = (Arc::new(Index::default()), Arc::new(Index::default()));
        let mut answers = Answers::default();
        assert!(answers.find(&index, 5, b"GET a").is_none());
        answers.keep(&index, 5, b"GET a", &answer(10));
        assert!(answers.find(&index, 5, b"GET a").is_some());
        assert!(answers.find(&index, 5, b"GET b").is_none());
        assert!(answers.find(&index, 6, b"GET a").is_none() && answers.find(&other, 5, b"GET a").is_none());
        answers.keep(&index, 6, b"GET b", &answer(10));
        assert!(answers.find(&index, 6, b"GET a").is_none(), "gone with its second");
    }

    #[test]
    fn a_long_answer_is_sealed_when_it_is_asked_for_again() {
        let index = Arc::new(Index::default());
        let mut answers = Answers::default();
        for (request, bytes) in [(b"GET short", 100), (b"GET long!", limits::ANSWER_SEALED_BYTES_MIN)] {
            answers.keep(&index, 5, request, &answer(bytes));
            let found = answers.find(&index, 5, request).expect("kept").octets;
            let is_long = bytes == limits::ANSWER_SEALED_BYTES_MIN;
            assert!(found.len() == bytes && matches!(found, Octets::Sealed(_)) == is_long);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let index = Arc::new(Index::default());
        let mut answers = Answers::default();
        for number in 0..10_000u32 {
            answers.keep(&index, 5, &number.to_le_bytes(), &answer(limits::ANSWER_BYTES_MAX));
        }
        assert!(answers.bytes <= limits::ANSWERS_BYTES_MAX && answers.held.len() > 8);
        answers.keep(&index, 6, &vec![7; limits::ANSWER_REQUEST_BYTES_MAX + 1], &answer(1));
        assert!(answers.held.is_empty());
    }
}
