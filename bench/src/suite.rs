//! A run of a suite: which cases it takes, how far it is, and what it prints and records.
//!
//! ```text
//! begin ─▶ for each case: takes ─▶ load in turns ─▶ measured | absent ─▶ end
//! ```
//! Lines of the contract go to standard output, progress to standard error.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bootstorm_tests::lab::Error;

use crate::case::{Absent, Comparison, Goal, Measure};
use crate::pairs::Options;
use crate::record::Record;

/// A case as the plan has it: its name, and how long it is expected to take beside all of its peers.
pub type Planned = (&'static str, Duration);

/// A suite under way.
#[derive(Debug)]
pub struct Suite<'a> {
    options: &'a Options,
    name: &'static str,
    record: Record,
    plan: Vec<Planned>,
    done: Duration,
    current: Option<&'static str>,
}

/// Why a suite stopped, and where. Nothing is recorded then.
#[derive(Debug)]
pub struct Failed {
    place: String,
    source: Error,
}

impl Failed {
    /// A suite that cannot begin.
    pub fn new(place: &str, source: Error) -> Self {
        Self { place: place.to_owned(), source }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; nothing is recorded", self.place, self.source)
    }
}

impl std::error::Error for Failed {}

impl<'a> Suite<'a> {
    /// Says what will be done and how long it is expected to take.
    ///
    /// # Errors
    /// When the one case that was asked for is not in the plan.
    pub fn begin(name: &'static str, options: &'a Options, plan: &[Planned]) -> Result<Self, Failed> {
        let taken = |case: &str| options.case.as_deref().is_none_or(|only| only == case);
        let all = plan.iter().map(|(case, _)| *case).collect::<Vec<_>>();
        let plan: Vec<Planned> = plan.iter().copied().filter(|(case, _)| taken(case)).collect();
        if let (Some(only), true) = (&options.case, plan.is_empty()) {
            let source = Error::Environment(format!("there is no case `{only}`; there are {}", all.join(", ")));
            return Err(Failed { place: name.to_owned(), source });
        }
        let whole = plan.iter().map(|(_, duration)| *duration).sum();
        eprintln!("bench: {name}: {} cases, {}", plan.len(), about(whole));
        Ok(Self { options, name, record: Record::new(name, options.quick), plan, done: Duration::ZERO, current: None })
    }

    /// Whether a case is to be run.
    pub fn wants(&self, case: &str) -> bool {
        self.plan.iter().any(|(name, _)| *name == case)
    }

    /// Whether a case is to be run; it is then the one under way.
    pub fn takes(&mut self, case: &'static str) -> bool {
        let Some(at) = self.plan.iter().position(|(name, _)| *name == case) else { return false };
        if let Some(before) = self.current.replace(case).filter(|before| *before != case) {
            self.done += self.plan.iter().filter(|(name, _)| *name == before).map(|(_, d)| *d).sum::<Duration>();
        }
        let whole: Duration = self.plan.iter().map(|(_, duration)| *duration).sum();
        let left = whole.saturating_sub(self.done);
        eprintln!("bench: {}: {case} ({} of {}), {} left", self.name, at + 1, self.plan.len(), about(left));
        true
    }

    /// Notes what a program calls its version.
    pub fn version_of(&mut self, program: &Path, arguments: &[&str]) {
        self.record.version_of(program, arguments);
    }

    /// Notes what figures depend on and no other field tells.
    pub fn note(&mut self, what: &'static str, value: impl Into<serde_json::Value>) {
        self.record.notes.insert(what, value.into());
    }

    /// Prints and keeps what a comparison says of each measure.
    ///
    /// # Errors
    /// As [`Comparison::ratio`].
    pub fn measured(&mut self, comparison: Comparison, goals: &[(Measure, Goal)]) -> Result<(), Error> {
        for (measure, goal) in goals {
            let ratio = comparison.ratio(*measure, *goal)?;
            println!("{ratio}");
            self.record.ratios.push(ratio);
        }
        self.record.samples.push(comparison);
        Ok(())
    }

    /// Prints and keeps that a case cannot be run, and why, in one word with dashes.
    pub fn absent(&mut self, case: &'static str, reason: &'static str) {
        let absent = Absent { case, reason };
        println!("{absent}");
        self.record.absent.push(absent);
    }

    /// Writes the record of a whole suite that succeeded.
    ///
    /// # Errors
    /// The outcome's, with the case it happened in; when the record cannot be written.
    pub fn end(self, outcome: Result<(), Error>) -> Result<(), Failed> {
        let place = || self.current.unwrap_or(self.name).to_owned();
        outcome.map_err(|source| Failed { place: place(), source })?;
        if self.options.case.is_some() {
            return Ok(());
        }
        self.record.write(&self.options.results).map_err(|source| Failed { place: self.name.to_owned(), source })
    }
}

fn about(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..=90 => format!("about {seconds} s"),
        seconds => format!("about {} min", seconds.div_ceil(60)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: [Planned; 2] = [("a", Duration::from_secs(60)), ("b", Duration::from_secs(30))];

    fn options(case: Option<&str>, results: &Path) -> Options {
        let case = case.map(str::to_owned);
        Options { bootstorm: "b".into(), bench: "c".into(), results: results.to_owned(), quick: true, case }
    }

    #[test]
    fn one_case_alone_is_taken_and_leaves_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(Some("b"), directory.path());
        let mut suite = Suite::begin("s", &options, &PLAN).unwrap();
        assert!(!suite.takes("a") && suite.takes("b"));
        suite.end(Ok(())).unwrap();
        assert!(!directory.path().join("s.json").exists());
        assert!(Suite::begin("s", &self::options(Some("d"), directory.path()), &PLAN).is_err());
    }

    #[test]
    fn a_failure_names_its_case_and_leaves_no_record() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(None, directory.path());
        let mut suite = Suite::begin("s", &options, &PLAN).unwrap();
        assert!(suite.takes("a"));
        let failed = suite.end(Err(Error::Interrupted)).unwrap_err();
        assert_eq!(failed.to_string(), "a: interrupted; nothing is recorded");
        assert!(!directory.path().join("s.json").exists());
    }

    #[test]
    fn a_whole_suite_is_recorded() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(None, directory.path());
        let mut suite = Suite::begin("s", &options, &PLAN).unwrap();
        suite.absent("a", "not-yet");
        suite.end(Ok(())).unwrap();
        let text = std::fs::read_to_string(directory.path().join("s.json")).unwrap();
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["absent"][0]["reason"], "not-yet");
        assert_eq!(record["suite"], "s");
    }
}
