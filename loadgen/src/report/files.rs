//! Reports as files: JSON that is read back, and the page.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Deserialize;

use super::page::page;
use super::{Report, SCHEMA};

/// Where a report goes beside standard output; part of the arguments of each scenario.
#[derive(Args, Clone, Debug, Default)]
pub struct Files {
    /// Write the report as JSON into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a page with plots into this file; it opens from disk.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Why a report could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Operator: the file cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Operator: the file is no report, or one that was changed by hand.
    #[error("`{}` is no report of `loadgen --json`: {what}", path.display())]
    NoReport {
        /// Which file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// Operator: the file comes from another version of this program.
    #[error("`{}` has schema {found}, this loadgen reads {SCHEMA}: run both with the same version", path.display())]
    Schema {
        /// Which file.
        path: PathBuf,
        /// The schema it names.
        found: u32,
    },
    /// Environment: standard output is gone.
    #[error("writing the report: {0}")]
    Output(std::io::Error),
}

impl Files {
    /// Writes the files that were asked for, and the table on standard output.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn publish(&self, report: &Report) -> Result<(), Error> {
        if let Some(path) = &self.json {
            write(path, &(report.json() + "\n"))?;
        }
        if let Some(path) = &self.html {
            write(path, &page(report))?;
        }
        std::io::stdout().lock().write_all(report.table().as_bytes()).map_err(Error::Output)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Just the version.
#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

impl Report {
    /// As JSON, in one line: `jq .` shows it in many.
    pub fn json(&self) -> String {
        // Only maps with keys that are no strings, and non-finite numbers of foreign types, fail; there are none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a report back.
    ///
    /// # Errors
    /// When the file cannot be read, is of another schema, has a field that we do not know or lacks one, or does not fit
    /// together.
    pub fn read(path: &Path) -> Result<Report, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Report::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Report, Error> {
        let no_report = |what: String| Error::NoReport { path: path.to_owned(), what };
        let Schema { schema: found } = serde_json::from_str(text).map_err(|error| no_report(error.to_string()))?;
        if found != SCHEMA {
            return Err(Error::Schema { path: path.to_owned(), found });
        }
        let report: Report = serde_json::from_str(text).map_err(|error| no_report(error.to_string()))?;
        if !report.timeline.is_consistent(report.stages.len()) {
            return Err(no_report("its timeline does not fit its stages".to_owned()));
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn json_gives_the_same_report_back() {
        let report = sample(50);
        let parsed = Report::parse(Path::new("a.json"), &report.json()).unwrap();
        assert!(parsed == report, "{}", parsed.json());
    }

    #[test]
    fn other_schemas_fields_and_sizes_are_refused() {
        let text = sample(3).json();
        let refused = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Report::parse(Path::new("a.json"), &text.replacen(from, to, 1)).unwrap_err().to_string()
        };
        assert!(refused("\"schema\":2", "\"schema\":1").contains("has schema 1"));
        assert!(refused("\"done\":", "\"finished\":").contains("no report"));
        assert!(refused("\"seed\":", "\"sead\":").contains("no report"));
        assert!(refused("\"bytes\":[", "\"bytes\":[1,").contains("timeline"));
        assert!(Report::parse(Path::new("a.json"), "{}").unwrap_err().to_string().contains("schema"));
    }
}
