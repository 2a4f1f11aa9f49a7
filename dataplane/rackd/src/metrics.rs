//! Counters of the role, as text for `/metrics`. Labels come from closed sets of our own, never from a peer.

use std::sync::{Arc, Mutex, PoisonError};

use bootstorm_content::Store;
use bootstorm_engine::dns::Kind;
use bootstorm_engine::{Counter as EngineCounter, Stats};
use bootstorm_proto::dhcp::SERVER_PORT;
use bootstorm_proto::{dns, tftp};
use bootstorm_sandbox::Enforced;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::cache::Cache;
use crate::confine::Confined;

type Labels = [(&'static str, &'static str); 2];
type Label = [(&'static str, &'static str); 1];

/// The role's metrics, shared by all its threads.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    drops: Family<Labels, Counter>,
    responses: Family<Label, Counter>,
    /// That of status 200 in `responses`.
    whole_responses: Counter,
    shards: Family<Label, Gauge>,
    pub(crate) http_bytes: Counter,
    pub(crate) http_connections: Gauge,
    pub(crate) tftp_bytes: Counter,
    pub(crate) tftp_transfers: Gauge,
    /// By kind, in the order of [`Kind::ALL`].
    dns_answers: [Counter; Kind::ALL.len()],
    pub(crate) generation: Gauge,
    pub(crate) files_missing: Gauge,
    pub(crate) wishes: Family<Label, Counter>,
    /// Octets that came for wishes, by what they were.
    fetched: Family<Label, Counter>,
    /// 1 while the disk takes no content.
    pub(crate) content_full: Gauge,
    /// Manifests and chunks let go, octets won back.
    pub(crate) evicted: Family<Label, Counter>,
    /// What the scrub has read and found.
    pub(crate) scrubbed: Family<Label, Counter>,
    /// What confines the role.
    sandbox: Family<Labels, Gauge>,
    engine: std::sync::Arc<EngineMetrics>,
}

#[derive(Debug, Default)]
struct EngineMetrics(Mutex<Option<Laid>>);

/// Counters and sizes as the engine had them.
type Laid = (Vec<(EngineCounter, u64)>, Stats);

impl Metrics {
    pub(crate) fn new(store: Store, cache: Arc<Cache>) -> Metrics {
        let mut registry = Registry::with_prefix("bootstorm_rack");
        let metrics = Metrics {
            drops: Family::default(),
            responses: Family::default(),
            whole_responses: Counter::default(),
            shards: Family::default(),
            http_bytes: Counter::default(),
            http_connections: Gauge::default(),
            tftp_bytes: Counter::default(),
            tftp_transfers: Gauge::default(),
            dns_answers: Default::default(),
            generation: Gauge::default(),
            files_missing: Gauge::default(),
            wishes: Family::default(),
            fetched: Family::default(),
            content_full: Gauge::default(),
            evicted: Family::default(),
            scrubbed: Family::default(),
            sandbox: Family::default(),
            engine: std::sync::Arc::default(),
            registry: Registry::default(),
        };
        registry.register("drops", "What was not taken, by protocol and reason", metrics.drops.clone());
        registry.register("http_responses", "HTTP responses by status", metrics.responses.clone());
        registry.register("shards", "Shards that serve, by what does their input and output", metrics.shards.clone());
        registry.register("http_body_bytes", "Octets of HTTP bodies handed to the kernel", metrics.http_bytes.clone());
        registry.register("http_connections", "HTTP connections open", metrics.http_connections.clone());
        registry.register(
            "tftp_file_bytes",
            "Octets of files sent by TFTP, repeats included",
            metrics.tftp_bytes.clone(),
        );
        registry.register("tftp_transfers", "TFTP transfers under way", metrics.tftp_transfers.clone());
        let dns_answers: Family<Label, Counter> = Family::default();
        registry.register("dns_answers", "Questions over DNS by what came of them", dns_answers.clone());
        registry.register("snapshot_generation", "Generation served", metrics.generation.clone());
        registry.register(
            "files_missing",
            "Files of the snapshot that are not whole here",
            metrics.files_missing.clone(),
        );
        registry.register("wishes", "Wishes for content by what became of them", metrics.wishes.clone());
        registry.register("fetched_bytes", "Octets that came for wishes, by what they were", metrics.fetched.clone());
        registry.register(
            "content_full",
            "1 while the disk takes no content: what is fetched is passed on and not kept",
            metrics.content_full.clone(),
        );
        registry.register("content_evicted", "What was let go for room", metrics.evicted.clone());
        registry.register("content_scrubbed", "What was read again to find rot", metrics.scrubbed.clone());
        registry.register("sandbox", "What confines the role, by how far it does", metrics.sandbox.clone());
        registry.register_collector(Box::new(std::sync::Arc::clone(&metrics.engine)));
        registry.register_collector(Box::new(StoreMetrics(store)));
        registry.register_collector(Box::new(ReceiveOverflow));
        registry.register_collector(Box::new(CacheMetrics(cache)));
        let whole_responses = metrics.responses.get_or_create(&[("status", "200")]).clone();
        // By far the most frequent events of a rack: none of them is looked up.
        let dns_answers = Kind::ALL.map(|kind| dns_answers.get_or_create(&[("what", kind.name())]).clone());
        Metrics { registry, whole_responses, dns_answers, ..metrics }
    }

    /// Something of a peer was not taken.
    pub(crate) fn dropped(&self, protocol: &'static str, reason: &'static str) {
        self.drops.get_or_create(&[("protocol", protocol), ("reason", reason)]).inc();
    }

    /// A question over DNS was understood.
    pub(crate) fn dns_answered(&self, kind: Kind) {
        if let Some(counter) = self.dns_answers.get(kind as usize) {
            counter.inc();
        }
    }

    pub(crate) fn response(&self, status: u16) {
        let text = match status {
            // By far the most: it is not looked up.
            200 => {
                self.whole_responses.inc();
                return;
            }
            206 => "206",
            304 => "304",
            404 => "404",
            416 => "416",
            503 => "503",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.responses.get_or_create(&[("status", text)]).inc();
    }

    /// A shard serves, with this backend of the driver.
    pub(crate) fn shard_serves(&self, backend: &'static str) {
        self.shards.get_or_create(&[("driver", backend)]).inc();
    }

    pub(crate) fn confined(&self, confined: Confined) {
        for (part, enforced) in [("landlock", confined.0.landlock), ("seccomp", confined.0.seccomp)] {
            let enforced = match enforced {
                Enforced::Fully => "full",
                Enforced::Partly => "part",
                Enforced::Missing => "none",
            };
            self.sandbox.get_or_create(&[("part", part), ("enforced", enforced)]).set(1);
        }
    }

    pub(crate) fn evicted(&self, what: &'static str, count: u64) {
        self.evicted.get_or_create(&[("what", what)]).inc_by(count);
    }

    pub(crate) fn scrubbed(&self, what: &'static str, count: u64) {
        self.scrubbed.get_or_create(&[("what", what)]).inc_by(count);
    }

    pub(crate) fn wish(&self, outcome: &'static str) {
        self.wishes.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Octets came for a wish.
    pub(crate) fn fetched(&self, what: &'static str, bytes: usize) {
        self.fetched.get_or_create(&[("what", what)]).inc_by(bytes as u64);
    }

    pub(crate) fn set_engine(&self, counters: Vec<(EngineCounter, u64)>, stats: Stats) {
        *self.engine.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((counters, stats));
    }

    /// All of it in the text format of OpenMetrics.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

impl Collector for EngineMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((counters, stats)) = known.as_ref() else { return Ok(()) };
        let help = "What the engine has counted, by family and reason";
        let mut family = encoder.encode_descriptor("engine", help, None, MetricType::Counter)?;
        for (counter, value) in counters {
            let labels = [("family", counter.family), ("reason", counter.label)];
            ConstCounter::new(*value).encode(family.encode_family(&labels)?)?;
        }
        let help = "Entries of the engine's tables";
        let mut family = encoder.encode_descriptor("engine_entries", help, None, MetricType::Gauge)?;
        let tables = [
            ("leases", stats.leases as u64),
            ("spooled", stats.spooled as u64),
            ("enrolments", stats.enrolments as u64),
            ("uncommitted", stats.uncommitted),
            ("held_plans", stats.held_plans as u64),
            ("dhcp_waiting", stats.waiting as u64),
        ];
        for (table, value) in tables {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
                .encode(family.encode_family(&[("table", table)])?)?;
        }
        Ok(())
    }
}

/// Datagrams that found a full receive buffer, as the kernel counts them. Read when somebody asks, not in between.
#[derive(Debug)]
struct ReceiveOverflow;

/// The kernel's table of this network namespace's UDP sockets (proc(5)).
const UDP_SOCKETS: &str = "/proc/net/udp";

impl Collector for ReceiveOverflow {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let Ok(table) = std::fs::read_to_string(UDP_SOCKETS) else { return Ok(()) };
        let help = "Datagrams lost to a full receive buffer, by the service's usual port";
        let mut family = encoder.encode_descriptor("udp_receive_overflows", help, None, MetricType::Counter)?;
        for (service, port) in [("dhcp", SERVER_PORT), ("tftp", tftp::SERVER_PORT), ("dns", dns::SERVER_PORT)] {
            ConstCounter::new(overflows(&table, port)).encode(family.encode_family(&[("service", service)])?)?;
        }
        Ok(())
    }
}

/// The drops of all sockets on a local port. Columns: slot, local address and port in hexadecimal, …, drops last.
fn overflows(table: &str, port: u16) -> u64 {
    let of_line = |line: &str| {
        let (_, local) = line.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
        let is_ours = u16::from_str_radix(local, 16).ok()? == port;
        line.split_ascii_whitespace().last()?.parse::<u64>().ok().filter(|_| is_ours)
    };
    table.lines().filter_map(of_line).sum()
}

#[derive(Debug)]
struct StoreMetrics(Store);

impl Collector for StoreMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let stats = self.0.stats();
        let help = "The content store: chunks, octets, packs, manifests, chunks quarantined";
        let mut family = encoder.encode_descriptor("content", help, None, MetricType::Gauge)?;
        let values = [
            ("chunks", stats.chunks),
            ("chunk_bytes", stats.chunk_bytes),
            ("packs", stats.packs),
            ("pack_bytes", stats.pack_bytes),
            ("manifests", stats.manifests),
            ("quarantined", stats.quarantined),
        ];
        for (what, value) in values {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
                .encode(family.encode_family(&[("what", what)])?)?;
        }
        Ok(())
    }
}

struct CacheMetrics(Arc<Cache>);

impl std::fmt::Debug for CacheMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.stats().fmt(f)
    }
}

impl Collector for CacheMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let stats = self.0.stats();
        let help = "Chunks brought into memory, their octets, and chunks let go";
        let mut family = encoder.encode_descriptor("cache_events", help, None, MetricType::Counter)?;
        for (what, value) in
            [("loaded", stats.loaded), ("loaded_bytes", stats.loaded_bytes), ("evicted", stats.evicted)]
        {
            ConstCounter::new(value).encode(family.encode_family(&[("what", what)])?)?;
        }
        let help = "Memory that chunks are kept in: slots and octets taken, blocks of 2 MiB in all and free";
        let mut family = encoder.encode_descriptor("cache", help, None, MetricType::Gauge)?;
        let arena = stats.arena;
        let values = [
            ("slots", arena.slots),
            ("slot_bytes", arena.slot_bytes),
            ("blocks", arena.blocks),
            ("blocks_free", arena.blocks_free),
        ];
        for (what, value) in values {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
                .encode(family.encode_family(&[("what", what)])?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_read_from_the_kernel_s_table() {
        // As Linux 6 writes it, two sockets on port 67 and one on port 69.
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             1043: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9001 2 ffff8f 12\n\
             1043: 0100000A:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9002 2 ffff8f 30\n\
             1045: 0100000A:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9003 2 ffff8f 5\n";
        assert_eq!([67, 69, 53].map(|port| overflows(table, port)), [42, 5, 0]);
        assert_eq!(overflows("nonsense\n 1: x:43 y", 67), 0);
    }
}
