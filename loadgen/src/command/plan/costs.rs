//! What things cost: one table, each figure with where it is from. What the committed records of `bench/results/` measured is
//! read from them when this program is built, so that it is as new as they are; records given at run time replace it.

use std::path::Path;

use bootstorm_proto::http::server::format_date;
use serde::{Deserialize, Serialize};

/// The committed records: their paths in the repository and what is in them. The build finds them.
const RECORDS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/records.rs"));

/// How far a figure is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// It was measured, on the machine that the source names.
    Measured,
    /// It was not; the source says what it leans on.
    Assumed,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// What it is of.
    pub what: &'static str,
    /// In the unit's terms.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// How far to trust it.
    pub basis: Basis,
    /// Where it is from.
    pub source: String,
    /// What of a record measures it.
    #[serde(skip)]
    record: Option<Measured>,
}

/// Where a record holds a figure.
#[derive(Clone, Copy, Debug)]
struct Measured {
    suite: &'static str,
    case: &'static str,
    figure: Figure,
}

/// Which figure of a case.
#[derive(Clone, Copy, Debug)]
enum Figure {
    /// Our server's CPU seconds for a unit.
    ServerCpu,
    /// All of our server's memory, socket buffers included, shared among so many connections.
    MemoryShare(f64),
}

/// All figures of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    /// Server CPU for a byte of a large body by HTTP.
    pub http_byte: Cost,
    /// Server CPU for a small request on a connection that is there.
    pub http_request: Cost,
    /// Server CPU for a connection with one small request.
    pub http_connection: Cost,
    /// Server CPU for a byte by TFTP, one block at a time.
    pub tftp_byte: Cost,
    /// Server CPU for one exchange of DHCP, from Discover to Ack, durable.
    pub dhcp_exchange: Cost,
    /// Server CPU for a node's agent: TLS, redemption, reports.
    pub agent: Cost,
    /// Memory of a rack's processes beside content and connections.
    pub base_memory: Cost,
    /// Memory of a connection that is sending, socket buffers included.
    pub connection_memory: Cost,
}

impl Default for Costs {
    fn default() -> Costs {
        let cost = |what, value, unit, source: &str, record| {
            let source = source.to_owned();
            Cost { what, value, unit, basis: Basis::Assumed, source, record }
        };
        // Each of them is in a committed record, which a test holds.
        let recorded = |what, unit, suite, case, figure| {
            cost(what, f64::NAN, unit, "no record", Some(Measured { suite, case, figure }))
        };
        let cpu = |what, unit, suite, case| recorded(what, unit, suite, case, Figure::ServerCpu);
        let memory = Figure::MemoryShare(1_000.0);
        let dhcp = Measured { suite: "dhcp", case: "dhcp-dora-loadgen", figure: Figure::ServerCpu };
        let mut costs = Costs {
            http_byte: cpu("HTTP, large bodies", "CPU s/byte", "http", "http-bulk-100-twocore-trunc"),
            http_request: cpu("HTTP, a small request", "CPU s", "http", "http-1k-keepalive-64"),
            http_connection: cpu("HTTP, a connection with one", "CPU s", "http", "http-1k-close-64"),
            tftp_byte: cpu("TFTP, one block at a time", "CPU s/byte", "tftp", "tftp-w1-200x1m"),
            dhcp_exchange: cost(
                "DHCP, Discover to Ack",
                100e-6,
                "CPU s",
                "no record yet; of the order of Kea's (50 to 95 microseconds in a prototype's comparison)",
                Some(dhcp),
            ),
            agent: cost(
                "a node's agent: TLS, claim, reports",
                10e-3,
                "CPU s",
                "no record; some ten TLS handshakes",
                None,
            ),
            base_memory: Cost {
                what: "a rack's processes",
                value: 308.0 * f64::from(1 << 20),
                unit: "bytes",
                basis: Basis::Measured,
                source: "docs/SPECIFICATION.md, peaks in the demo: rack 274, gateway 24, supervisor 10 MiB".to_owned(),
                record: None,
            },
            connection_memory: recorded(
                "a connection that is sending, with its share of the server",
                "bytes",
                "http",
                "http-stream-memory-1000",
                memory,
            ),
        };
        for &(path, text) in RECORDS {
            // A test reads each of them.
            let _none_learnt = costs.take(path, text);
        }
        costs
    }
}

/// As much of a record as is read.
#[derive(Deserialize)]
struct Record {
    suite: String,
    started_unix_seconds: u64,
    machine: Machine,
    samples: serde_json::Value,
    #[serde(default)]
    quick: bool,
}

#[derive(Deserialize)]
struct Machine {
    processor: String,
    processors: u32,
}

impl Costs {
    /// All, in the order of the table.
    pub fn all(&self) -> [&Cost; 8] {
        [
            &self.http_byte,
            &self.http_request,
            &self.http_connection,
            &self.tftp_byte,
            &self.dhcp_exchange,
            &self.agent,
            &self.base_memory,
            &self.connection_memory,
        ]
    }

    fn all_mut(&mut self) -> [&mut Cost; 8] {
        [
            &mut self.http_byte,
            &mut self.http_request,
            &mut self.http_connection,
            &mut self.tftp_byte,
            &mut self.dhcp_exchange,
            &mut self.agent,
            &mut self.base_memory,
            &mut self.connection_memory,
        ]
    }

    /// Takes what a record of the bench measured in place of what stands here.
    ///
    /// # Errors
    /// When the file is no record, or measured nothing that a plan uses.
    pub fn learn(&mut self, path: &Path) -> Result<(), String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("`{}`: {error}", path.display()))?;
        self.take(&path.display().to_string(), &text)
    }

    fn take(&mut self, path: &str, text: &str) -> Result<(), String> {
        let record: Record =
            serde_json::from_str(text).map_err(|error| format!("`{path}`: no record of bench: {error}"))?;
        let mut learnt = 0;
        for cost in self.all_mut() {
            let Some(measured) = cost.record.filter(|measured| measured.suite == record.suite) else { continue };
            let Some(value) = median(&record.samples, measured) else { continue };
            let Machine { processor, processors } = &record.machine;
            let date = format_date(record.started_unix_seconds);
            let quick = if record.quick { ", a shortened run" } else { "" };
            cost.value = value;
            cost.basis = Basis::Measured;
            cost.source = format!("{path}, {}: {date}, {processors} x {processor}, loopback{quick}", measured.case);
            learnt += 1;
        }
        if learnt == 0 { Err(format!("`{path}`: has no sample of a case that a plan uses")) } else { Ok(()) }
    }
}

/// Median of a figure over our samples of its case. Records hold samples by case as pairs (version 1) or as a list of
/// comparisons (version 2).
fn median(samples: &serde_json::Value, measured: Measured) -> Option<f64> {
    let Measured { case, figure, .. } = measured;
    let figure = |sample: &serde_json::Value| {
        let of = |field: &str| sample.get(field)?.as_f64();
        let value = match figure {
            Figure::ServerCpu => of("server_cpu_seconds")? / of("units")?,
            Figure::MemoryShare(connections) => sample.get("figures")?.get("memory")?.as_f64()? / connections,
        };
        Some(value).filter(|value| value.is_finite() && *value > 0.0)
    };
    let mut figures: Vec<f64> = match samples.get(case).and_then(|pairs| pairs.as_array()) {
        Some(pairs) => pairs.iter().filter_map(|pair| figure(pair.get("ours")?)).collect(),
        None => {
            let comparisons = samples.as_array()?.iter();
            let of_case =
                comparisons.filter(|comparison| comparison.get("case").and_then(|name| name.as_str()) == Some(case));
            of_case.filter_map(|comparison| comparison.get("ours")?.as_array()).flatten().filter_map(figure).collect()
        }
    };
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_both_versions_replace_what_they_measured_and_nothing_else() {
        let directory = std::env::temp_dir().join(format!("loadgen-costs-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let sample = |cpu: f64| serde_json::json!({ "units": 10.0, "server_cpu_seconds": cpu });
        let write = |name: &str, suite: &str, samples: serde_json::Value| {
            let record = serde_json::json!({
                "suite": suite,
                "started_unix_seconds": 0,
                "machine": { "processor": "P", "processors": 2 },
                "samples": samples,
            });
            let path = directory.join(name);
            std::fs::write(&path, record.to_string()).unwrap();
            path
        };
        let old = [1.0, 3.0, 2.0].map(|cpu| serde_json::json!({ "ours": sample(cpu), "peer": sample(9.0) }));
        let old = write("old", "tftp", serde_json::json!({ "tftp-w1-200x1m": old }));
        let new = serde_json::json!([
            { "case": "other", "ours": [sample(7.0)] },
            { "case": "dhcp-dora-loadgen", "ours": [sample(5.0)] },
        ]);
        let new = write("new", "dhcp", new);
        let odd = write("odd", "dns", serde_json::json!([]));
        let mut costs = Costs::default();
        costs.learn(&old).unwrap();
        costs.learn(&new).unwrap();
        assert_eq!((costs.tftp_byte.value, costs.dhcp_exchange.value), (0.2, 0.5));
        assert_eq!((costs.dhcp_exchange.basis, costs.agent.basis), (Basis::Measured, Basis::Assumed));
        assert_eq!(costs.http_byte.value, Costs::default().http_byte.value);
        assert!(costs.learn(&odd).unwrap_err().contains("no sample") && costs.learn(&directory.join("none")).is_err());
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Plans were once made for weeks with what a rack had cost before it was tuned: figures typed in by hand, which nobody
    /// remembered when the records were measured anew. Each must be what its committed record's ratio says.
    #[test]
    fn figures_are_those_of_the_committed_records() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/results");
        let ratio = |suite: &str, case: &str, measure: &str| {
            let text = std::fs::read_to_string(results.join(suite).with_extension("json")).unwrap();
            let record: serde_json::Value = serde_json::from_str(&text).unwrap();
            let ratios: Vec<f64> = (record["ratios"].as_array().unwrap().iter())
                .filter(|ratio| ratio["case"] == case && ratio["measure"] == measure)
                .map(|ratio| ratio["ours"].as_f64().unwrap())
                .collect();
            (ratios.iter().copied().fold(f64::INFINITY, f64::min), ratios.iter().copied().fold(0.0, f64::max))
        };
        let costs = Costs::default();
        let near = |cost: &Cost, (least, most): (f64, f64)| {
            // Beside each peer it is a median of its own; the plan takes that of all together.
            assert!((least * 0.999..=most * 1.001).contains(&cost.value), "{least} to {most}: {cost:?}");
            assert_eq!(cost.basis, Basis::Measured);
            assert!(cost.source.contains(" GMT, "), "no date: {cost:?}");
        };
        near(&costs.http_request, ratio("http", "http-1k-keepalive-64", "server_cpu"));
        near(&costs.http_connection, ratio("http", "http-1k-close-64", "server_cpu"));
        near(&costs.tftp_byte, ratio("tftp", "tftp-w1-200x1m", "server_cpu"));
        let (least, most) = ratio("http", "http-stream-memory-1000", "memory");
        near(&costs.connection_memory, (least / 1_000.0, most / 1_000.0));
        // Of large bodies the ratio tells what both sides took.
        let (_, both) = ratio("http", "http-bulk-100-twocore-trunc", "total_cpu");
        assert!(costs.http_byte.basis == Basis::Measured && costs.http_byte.value < both, "{:?}", costs.http_byte);
    }

    /// A record that is committed later and measures what a plan assumes is built in, too.
    #[test]
    fn every_committed_record_of_use_is_built_in() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/results");
        for entry in std::fs::read_dir(results).unwrap() {
            let path = entry.unwrap().path();
            let is_built_in = RECORDS.iter().any(|(name, _)| path.ends_with(name));
            assert!(is_built_in || Costs::default().learn(&path).is_err(), "{}: loadgen/build.rs", path.display());
        }
    }

    #[test]
    fn every_figure_says_where_it_is_from() {
        for cost in Costs::default().all() {
            assert!(cost.value > 0.0 && cost.source.len() > 20, "{cost:?}");
        }
    }
}
