//! What a storm needs from its host, looked at before the first packet; each lack is told with what to do about it.

use std::fs;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The kernel's neighbour table has room for so many entries beyond the nodes (servers, other machines).
const NEIGHBOURS_BESIDES: u32 = 256;
/// One node in so many has a UDP socket and a connection at the same time: the one is closed before the other is opened, but
/// gone only with the driver's next turn.
const NODES_BETWEEN_DESCRIPTORS: u64 = 8;
/// Descriptors of the program itself.
const DESCRIPTORS_BESIDES: u64 = 128;
const CAP_NET_ADMIN: u64 = 12;
const CAP_NET_RAW: u64 = 13;

/// Looks at everything; the lacks found, in sentences.
pub fn lacks(nodes: u32) -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let neighbours = fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").ok();
    let mut lacks = Vec::new();
    lacks.extend(capabilities(&status));
    // Only the first network namespace shows the limit, yet it holds for the sum of all on the host.
    lacks.extend(neighbours.and_then(|limit| neighbour_table(&limit, nodes)));
    lacks.extend(descriptors(needed_descriptors(nodes.into())));
    lacks
}

fn capabilities(status: &str) -> Option<String> {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let has = |capability: u64| effective >> capability & 1 == 1;
    let missing = match (has(CAP_NET_ADMIN), has(CAP_NET_RAW)) {
        (true, true) => return None,
        (false, true) => "CAP_NET_ADMIN (for the nodes' addresses)",
        (true, false) => "CAP_NET_RAW (for the nodes' own frames)",
        (false, false) => "CAP_NET_ADMIN and CAP_NET_RAW",
    };
    Some(format!("needs {missing}: run it as root, best in a network namespace of its own"))
}

fn neighbour_table(limit: &str, nodes: u32) -> Option<String> {
    let limit: u32 = limit.trim().parse().ok()?;
    let needed = nodes + NEIGHBOURS_BESIDES;
    (limit < needed).then(|| {
        format!(
            "the neighbour table holds {limit} entries, {nodes} nodes need {needed}: \
             `sysctl net.ipv4.neigh.default.gc_thresh3={needed} net.ipv4.neigh.default.gc_thresh2={needed}`, on the server too"
        )
    })
}

/// Descriptors that a run needs at its height: a socket or a connection for each node.
fn needed_descriptors(nodes: u64) -> u64 {
    nodes + nodes / NODES_BETWEEN_DESCRIPTORS + DESCRIPTORS_BESIDES
}

/// Raises the limit of open descriptors: within the hard limit, or with it where the process may (CAP_SYS_RESOURCE).
fn descriptors(needed: u64) -> Option<String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return None;
    }
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).is_ok() {
        return None;
    }
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    Some(format!("needs {needed} open files and may have {maximum}: raise the hard limit (`ulimit -Hn {needed}`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lacks_are_told_with_what_to_do() {
        assert!(capabilities("CapEff:\t0000000000000000\n").unwrap().contains("CAP_NET_ADMIN and CAP_NET_RAW"));
        assert_eq!(capabilities("CapEff:\t000001ffffffffff\n"), None);
        let told = neighbour_table("1024\n", 1_000).unwrap();
        assert!(told.contains("gc_thresh3=1256"), "{told}");
        assert_eq!(neighbour_table("2048", 1_000), None);
        assert!(descriptors(u64::MAX - 1).is_some());
        assert_eq!(descriptors(8), None);
    }
}
