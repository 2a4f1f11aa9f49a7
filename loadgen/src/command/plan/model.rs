//! The arithmetic of a plan: bytes and exchanges of a node, times costs, over what a rack has.

use serde::Serialize;

use super::costs::Costs;
use crate::limits::RANGE_BYTES;

/// Octets of payload for an octet on the wire: TCP over IPv4 with time stamps at an MTU of 1,500, with Ethernet's preamble
/// and gap (1,448 of 1,538).
const WIRE_SHARE: f64 = 1_448.0 / 1_538.0;
/// Octets of a TFTP block that PXE firmware asks for.
const TFTP_BLOCK_BYTES: f64 = 1_456.0;
/// Exchanges of DHCP in a boot: the firmware's and iPXE's.
const DHCP_EXCHANGES: f64 = 2.0;
/// Small HTTP requests of a boot beside the stream's ranges: scripts, kernel, initial RAM disks, manifest.
const HTTP_REQUESTS: f64 = 6.0;
/// Connections of a boot: iPXE opens one for each file.
const HTTP_CONNECTIONS: f64 = 6.0;
/// Neighbour table entries beside the nodes.
const NEIGHBOURS_BESIDES: u64 = 256;

/// What is asked.
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    /// Machines in all.
    pub nodes: u64,
    /// Racks that share them.
    pub racks: u64,
    /// The image as it stands on a disk.
    pub image_bytes: f64,
    /// How many times smaller its stored stream is.
    pub compression: f64,
    /// Loader, by TFTP.
    pub loader_bytes: f64,
    /// Kernel and initial RAM disks, by HTTP, as they are.
    pub boot_bytes: f64,
    /// A rack's network.
    pub nic_bits_per_second: f64,
    /// Processors of a rack; absent: as many as fill its network.
    pub cores: Option<u64>,
    /// What a rack's disk reads.
    pub disk_bytes_per_second: f64,
    /// A rack's memory; absent: as much as holds all content.
    pub memory_bytes: Option<f64>,
    /// A node's network.
    pub node_nic_bits_per_second: f64,
    /// What a node's disk writes.
    pub node_disk_bytes_per_second: f64,
    /// Round trip between node and rack.
    pub round_trip_seconds: f64,
    /// What each node takes by itself: the kernel's boot, the agent's start. Firmware's self-test is not part of it.
    pub node_fixed_seconds: f64,
}

/// One thing that a rack's work takes time of.
#[derive(Clone, Debug, Serialize)]
pub struct Resource {
    /// Which.
    pub name: &'static str,
    /// How long it would take if nothing else were in the way.
    pub seconds: f64,
}

/// The answer, of one rack unless said.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// Machines of the fullest rack.
    pub nodes: u64,
    /// Octets that leave it, headers not counted.
    pub payload_bytes: f64,
    /// Octets from the origin to all racks.
    pub origin_bytes: f64,
    /// CPU seconds, all cores together.
    pub cpu_seconds: f64,
    /// Of them DHCP's; one thread does them.
    pub dhcp_cpu_seconds: f64,
    /// Of them TFTP's.
    pub tftp_cpu_seconds: f64,
    /// Cores that keep up with the network.
    pub cores_for_nic: u64,
    /// Cores that the estimate counts on.
    pub cores: u64,
    /// Octets of content that should be in memory.
    pub content_bytes: f64,
    /// Octets of memory: content, connections, processes.
    pub memory_bytes: f64,
    /// Octets read from the disk.
    pub disk_bytes: f64,
    /// Least `gc_thresh3`, where the nodes are on the rack's own networks.
    pub neighbours: u64,
    /// What the rack's work takes, the longest first.
    pub resources: Vec<Resource>,
    /// What one node alone would need for loader and image.
    pub node_seconds: f64,
    /// Its loader, block by block.
    pub node_loader_seconds: f64,
    /// From power-on of all to the last node's end, without firmware's self-test.
    pub makespan_seconds: f64,
    /// What limits that.
    pub limit: &'static str,
}

/// Does the arithmetic.
pub fn answer(question: &Question, costs: &Costs) -> Answer {
    let nodes = question.nodes.div_ceil(question.racks.max(1));
    let count = nodes as f64;
    let stored = question.image_bytes / question.compression;
    let http_bytes = question.boot_bytes + stored;
    let ranges = (stored / RANGE_BYTES as f64).ceil();
    let payload = count * (question.loader_bytes + http_bytes);
    let nic = payload / (question.nic_bits_per_second / 8.0 * WIRE_SHARE);

    let dhcp_cpu = count * DHCP_EXCHANGES * costs.dhcp_exchange.value;
    let tftp_cpu = count * question.loader_bytes * costs.tftp_byte.value;
    let http_cpu = count
        * (http_bytes * costs.http_byte.value
            + (HTTP_REQUESTS + ranges) * costs.http_request.value
            + HTTP_CONNECTIONS * costs.http_connection.value);
    let cpu = dhcp_cpu + tftp_cpu + http_cpu + count * costs.agent.value;
    let cores_for_nic = (cpu / nic).ceil().max(1.0) as u64;
    let cores = question.cores.unwrap_or(cores_for_nic).max(1);

    let content = question.loader_bytes + http_bytes;
    let besides = costs.base_memory.value + count * costs.connection_memory.value;
    let held = question.memory_bytes.map_or(1.0, |memory| ((memory - besides) / content).clamp(0.0, 1.0));
    // What does not stay in memory is read anew for every node: the worst case, of nodes that never want the same at once.
    let disk_bytes = content * (held + (1.0 - held) * count);

    let mut resources = vec![
        Resource { name: "network", seconds: nic },
        Resource { name: "processors", seconds: cpu / cores as f64 },
        Resource { name: "disk", seconds: disk_bytes / question.disk_bytes_per_second },
        Resource { name: "DHCP's thread", seconds: dhcp_cpu },
    ];
    resources.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    let loader = (question.loader_bytes / TFTP_BLOCK_BYTES).ceil() * question.round_trip_seconds;
    let received = http_bytes / (question.node_nic_bits_per_second / 8.0 * WIRE_SHARE);
    let node = loader + received.max(question.image_bytes / question.node_disk_bytes_per_second);
    let (slowest, limit) = match resources.first() {
        Some(resource) if resource.seconds >= node => (resource.seconds, resource.name),
        Some(_) | None => (node, "each node itself"),
    };
    Answer {
        nodes,
        payload_bytes: payload,
        origin_bytes: content * question.racks.max(1) as f64,
        cpu_seconds: cpu,
        dhcp_cpu_seconds: dhcp_cpu,
        tftp_cpu_seconds: tftp_cpu,
        cores_for_nic,
        cores,
        content_bytes: content,
        memory_bytes: content + besides,
        disk_bytes,
        neighbours: nodes + NEIGHBOURS_BESIDES,
        resources,
        node_seconds: node,
        node_loader_seconds: loader,
        makespan_seconds: question.node_fixed_seconds + slowest,
        limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            nodes: 1_000,
            racks: 1,
            image_bytes: 3e9,
            compression: 3.0,
            loader_bytes: 1e6,
            boot_bytes: 24e6,
            nic_bits_per_second: 100e9,
            cores: None,
            disk_bytes_per_second: 3e9,
            memory_bytes: None,
            node_nic_bits_per_second: 10e9,
            node_disk_bytes_per_second: 1e9,
            round_trip_seconds: 0.0002,
            node_fixed_seconds: 10.0,
        }
    }

    #[test]
    fn bytes_over_the_network_are_the_limit_with_enough_cores() {
        let answer = answer(&question(), &Costs::default());
        assert_eq!(answer.payload_bytes.round(), 1_025e9);
        let network = 1_025e9 / (12.5e9 * WIRE_SHARE);
        assert!((answer.makespan_seconds - 10.0 - network).abs() < 1e-6 && answer.limit == "network", "{answer:?}");
        assert!(answer.cpu_seconds / network <= answer.cores_for_nic as f64);
        assert!(answer.cpu_seconds / network > (answer.cores_for_nic - 1) as f64);
    }

    #[test]
    fn few_cores_little_memory_or_slow_nodes_are_the_limit_instead() {
        let costs = Costs::default();
        let cores = answer(&Question { cores: Some(2), ..question() }, &costs);
        assert_eq!((cores.limit, cores.makespan_seconds), ("processors", 10.0 + cores.cpu_seconds / 2.0));
        let memory = answer(&Question { memory_bytes: Some(0.0), ..question() }, &costs);
        assert_eq!((memory.limit, memory.disk_bytes), ("disk", memory.content_bytes * 1_000.0));
        let disk = answer(&Question { node_disk_bytes_per_second: 1e6, ..question() }, &costs);
        assert_eq!(disk.limit, "each node itself");
        assert!(disk.makespan_seconds > 3_000.0);
    }

    #[test]
    fn racks_share_the_nodes_and_fill_once_each() {
        let answer = answer(&Question { racks: 3, ..question() }, &Costs::default());
        assert_eq!((answer.nodes, answer.neighbours), (334, 590));
        assert_eq!(answer.origin_bytes, 3.0 * answer.content_bytes);
    }
}
