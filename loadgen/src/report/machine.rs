//! The host, as far as figures depend on it.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// Limits of the kernel that a load can run into; each is a file below `/proc/sys`. What cannot be read (some are shown in
/// the first network namespace only) is left out.
const LIMITS: [&str; 12] = [
    "fs.file-max",
    "net.core.netdev_max_backlog",
    "net.core.optmem_max",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.udp_mem",
];

/// A host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its processor's name, family, model and clock, as the kernel tells them.
    pub processor: String,
    /// Processors that this program may use.
    pub processors: usize,
    /// Memory.
    pub memory_kib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// Load averages when the report was made, with the number of tasks: what else went on.
    pub load_average: String,
    /// Limits of the kernel by name.
    pub limits: BTreeMap<String, String>,
}

impl Machine {
    /// The host that this program runs on.
    pub fn here() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let limit = |name: &&str| {
            let text = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).ok()?;
            Some(((*name).to_owned(), text.split_whitespace().collect::<Vec<_>>().join(" ")))
        };
        let processor = read("/proc/cpuinfo");
        let [name, family, model, mhz] =
            ["model name", "cpu family", "model\t", "cpu MHz"].map(|key| field(&processor, key).unwrap_or("unknown"));
        Machine {
            processor: format!("{name}, family {family}, model {model}, {mhz} MHz"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory_bytes() >> 10,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            load_average: read("/proc/loadavg").trim().to_owned(),
            limits: LIMITS.iter().filter_map(limit).collect(),
        }
    }
}

/// The host's memory; 0 where the kernel does not say.
pub fn memory_bytes() -> u64 {
    kibibytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal").unwrap_or(0) << 10
}

/// The most memory that this program has had resident; 0 where the kernel does not say.
pub fn own_memory_bytes_max() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kibibytes(&status, "VmHWM").unwrap_or(0) << 10
}

/// The value of a line `KEY: VALUE`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

/// The value of a line `KEY: NUMBER kB`.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    field(text, key)?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_key() {
        let text = "model\t\t: 17\nmodel name\t: Some CPU\nVmHWM:\t  2048 kB\n";
        assert_eq!((field(text, "model name"), field(text, "model\t")), (Some("Some CPU"), Some("17")));
        assert_eq!((kibibytes(text, "VmHWM"), kibibytes(text, "VmRSS")), (Some(2_048), None));
    }

    #[test]
    fn this_host_is_described() {
        let machine = Machine::here();
        assert!(machine.memory_kib > 1 << 10 && machine.processors > 0 && !machine.kernel.is_empty(), "{machine:?}");
        assert!(own_memory_bytes_max() > 1 << 18);
    }
}
