//! Results as versioned JSON: the machine, the versions, every ratio with its spread and every sample behind it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bootstorm_tests::lab::{Error, process};
use serde::Serialize;

use crate::case::{Absent, Comparison, Ratio};

/// Of this file format. 2: samples stand in a list by case and peer; what they need not have is left out.
const VERSION: u32 = 2;

/// All results of one suite.
#[derive(Debug, Serialize)]
pub struct Record {
    version: u32,
    suite: &'static str,
    started_unix_seconds: u64,
    quick: bool,
    machine: Machine,
    /// Versions by program.
    pub versions: BTreeMap<String, String>,
    /// What was measured.
    pub ratios: Vec<Ratio>,
    /// What could not be measured yet.
    pub absent: Vec<Absent>,
    /// What figures depend on and no other field tells, such as how far an image can be compressed.
    pub notes: BTreeMap<&'static str, serde_json::Value>,
    /// What the ratios are of.
    pub samples: Vec<Comparison>,
}

/// The machine, as far as figures depend on it.
#[derive(Debug, Serialize)]
struct Machine {
    processor: String,
    processors: usize,
    memory_kib: u64,
    kernel: String,
    load_average_at_start: String,
    /// Of the host's own network; both ends of a veth pair have `cubic`.
    congestion_control: String,
}

impl Record {
    /// An empty record that begins now.
    pub fn new(suite: &'static str, quick: bool) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            version: VERSION,
            suite,
            started_unix_seconds: since.as_secs(),
            quick,
            machine: Machine::here(),
            versions: BTreeMap::new(),
            ratios: Vec::new(),
            absent: Vec::new(),
            notes: BTreeMap::new(),
            samples: Vec::new(),
        }
    }

    /// Notes what a program calls its version: the first line that `arguments` make it print.
    pub fn version_of(&mut self, program: &Path, arguments: &[&str]) {
        let output = process::command(program).args(arguments).output();
        let text = output.map(|out| [out.stdout, out.stderr].concat()).unwrap_or_default();
        let line = String::from_utf8_lossy(&text).lines().next().unwrap_or("unknown").trim().to_owned();
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.versions.insert(name, line);
    }

    /// Writes `DIRECTORY/SUITE.json` in one step.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), Error> {
        let path = directory.join(format!("{}.json", self.suite));
        let write = || {
            fs::create_dir_all(directory)?;
            let fresh = path.with_extension("new");
            fs::write(&fresh, format!("{}\n", serde_json::to_string_pretty(self)?))?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|source| Error::File { path: path.clone(), source })
    }
}

impl Machine {
    fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let processor = read("/proc/cpuinfo");
        let words = ["model name", "cpu family", "model\t", "cpu MHz"].map(|key| field(&processor, key));
        let [name, family, model, mhz] = words;
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            processor: format!("{name}, family {family}, model {model}, {mhz} MHz"),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_kib: memory.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average_at_start: read("/proc/loadavg").trim().to_owned(),
            congestion_control: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
        }
    }
}
