//! What things cost: one table, each figure with where it is from. Records of `bench/results/` replace what they measured.

use std::path::Path;

use serde::{Deserialize, Serialize};

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
    /// Suite and case of the record that measures it.
    #[serde(skip)]
    record: Option<(&'static str, &'static str)>,
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
        const BENCH: &str = "2 shared cores of AMD EPYC family 25 at 2.45 GHz, loopback, 2026-11-23, before tuning";
        let measured = |what, value, unit, suite: &'static str, case: &'static str| {
            let source = format!("bench/results/{suite}.json, {case}: {BENCH}");
            Cost { what, value, unit, basis: Basis::Measured, source, record: Some((suite, case)) }
        };
        let assumed = |what, value, unit, source: &str, record| {
            let source = source.to_owned();
            Cost { what, value, unit, basis: Basis::Assumed, source, record }
        };
        Costs {
            http_byte: measured("HTTP, large bodies", 1.43e-9, "CPU s/byte", "http", "http-bulk-100-twocore-trunc"),
            http_request: measured("HTTP, a small request", 16.0e-6, "CPU s", "http", "http-1k-keepalive-64"),
            http_connection: measured("HTTP, a connection with one", 67.0e-6, "CPU s", "http", "http-1k-close-64"),
            tftp_byte: measured("TFTP, one block at a time", 7.66e-9, "CPU s/byte", "tftp", "tftp-w1-200x1m"),
            dhcp_exchange: assumed(
                "DHCP, Discover to Ack",
                100e-6,
                "CPU s",
                "no record yet; of the order of Kea's (50 to 95 microseconds in a prototype's comparison)",
                Some(("dhcp", "dhcp-dora-loadgen")),
            ),
            agent: assumed(
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
            connection_memory: assumed(
                "a connection that is sending",
                512.0 * 1024.0,
                "bytes",
                "no record; socket buffers as the kernel grows them",
                None,
            ),
        }
    }
}

/// As much of a record as is read.
#[derive(Deserialize)]
struct Record {
    suite: String,
    machine: Machine,
    samples: serde_json::Value,
    #[serde(default)]
    quick: bool,
}

#[derive(Deserialize)]
struct Machine {
    processor: String,
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
        let told = |error: &dyn std::fmt::Display| format!("`{}`: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
        let record: Record =
            serde_json::from_str(&text).map_err(|error| told(&format!("no record of bench: {error}")))?;
        let mut learnt = 0;
        for cost in self.all_mut() {
            let Some((_, case)) = cost.record.filter(|(suite, _)| *suite == record.suite) else { continue };
            let Some(value) = server_cpu(&record.samples, case) else { continue };
            let quick = if record.quick { ", a shortened run" } else { "" };
            cost.value = value;
            cost.basis = Basis::Measured;
            cost.source = format!("{}, {case}: {}{quick}", path.display(), record.machine.processor);
            learnt += 1;
        }
        if learnt == 0 { Err(told(&"has no sample of a case that a plan uses")) } else { Ok(()) }
    }
}

/// Median of our server's CPU seconds for a unit of a case. Records hold samples by case as pairs (version 1) or as a list of
/// comparisons (version 2).
fn server_cpu(samples: &serde_json::Value, case: &str) -> Option<f64> {
    let figure = |sample: &serde_json::Value| {
        let of = |field: &str| sample.get(field)?.as_f64();
        Some(of("server_cpu_seconds")? / of("units")?).filter(|value| value.is_finite() && *value > 0.0)
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
            let record = serde_json::json!({ "suite": suite, "machine": { "processor": "P" }, "samples": samples });
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

    #[test]
    fn every_figure_says_where_it_is_from() {
        for cost in Costs::default().all() {
            assert!(cost.value > 0.0 && cost.source.len() > 20, "{cost:?}");
        }
    }
}
