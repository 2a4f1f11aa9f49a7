//! The report as one HTML page that needs nothing else: it opens from disk, loads nothing and runs nothing.
//!
//! All that comes from outside (reasons, arguments, the machine's description) is escaped where it is written.

mod plots;
mod svg;

use std::fmt::Write;

use bootstorm_proto::http::server::format_date;

use super::Report;
use super::table::{PERCENTILES, milliseconds};
use svg::{Escaped, label, time_label};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub fn page(report: &Report) -> String {
    let scenario = Escaped(&report.run.scenario);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>loadgen {scenario}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>loadgen {scenario}</h1>\n"
    );
    head(&mut page, report);
    let kinds = report.timeline.live.iter().any(|column| column.iter().any(|live| *live > 0));
    section(
        &mut page,
        "Stages of a boot",
        "From the beginning to the end of each stage: solid for the median node, fainter for p90 and p99. Each end of a bar is \
         a percentile of its own. A stage that a node comes to twice goes from its first beginning to its last end.",
        plots::stages(report),
    );
    section(&mut page, "Throughput", "All bytes that nodes received.", plots::throughput(report));
    if kinds {
        let text = format!("How many nodes were in which stage.</p>{}<p>", legend(report));
        section(&mut page, "Nodes by stage", &text, plots::live(report));
    }
    section(&mut page, "Completions", "What came to its end, by second.", plots::completions(report));
    section(
        &mut page,
        "Latency by stage",
        "Time spent in each stage, on a logarithmic axis that all share; the height is the share of the times, the dashed lines \
         are p50, p99 and the longest.",
        spreads(report),
    );
    let text = format!("The slowest of the nodes that are done.</p>{}<p>", legend(report));
    let plot = plots::nodes(report, &report.stragglers, "Where the slowest nodes spent their time");
    section(&mut page, "Stragglers", &text, plot);
    figures(&mut page, report);
    failures(&mut page, report);
    place(&mut page, report);
    page.push_str("</body>\n</html>\n");
    page
}

/// A section with a plot; nothing without one. `text` is HTML of our own.
fn section(page: &mut String, title: &str, text: &str, plot: Option<String>) {
    if let Some(plot) = plot {
        let _ = write!(page, "<h2>{title}</h2>\n<p>{text}</p>\n{plot}");
    }
}

/// What matters most.
fn head(page: &mut String, report: &Report) {
    let run = &report.run;
    let (seed, version) = (run.seed, Escaped(&report.version));
    let _ = writeln!(page, "<p>seed {seed}, loadgen {version}, {}</p>", format_date(run.started_unix_seconds));
    let expected = run.expected.map(|expected| format!(" / {expected}")).unwrap_or_default();
    let seconds = run.wall_seconds.max(1e-3);
    let death: u64 = report.died.values().sum();
    let mut tiles = vec![
        (format!("{}{expected}", report.done), "done", report.is_complete()),
        (report.failed.to_string(), "failed", report.failed == 0),
        (format!("{} s", label(run.wall_seconds)), "whole run", true),
        (format!("{} MB/s", label((report.received_bytes as f64 / 1e5 / seconds).round() / 10.0)), "received", true),
        (format!("{} MB", label((report.received_bytes as f64 / 1e6).round())), "received in all", true),
        (format!("{} s", label(run.cpu_seconds)), "CPU of loadgen", true),
        (format!("{} MiB", run.rss_bytes_max >> 20), "memory of loadgen", true),
        (format!("{} ms", run.start_late_milliseconds_max), "latest start", true),
    ];
    if death > 0 {
        tiles.insert(2, (death.to_string(), "died as wanted", true));
    }
    page.push_str("<div class=\"tiles\">\n");
    for (value, what, is_good) in tiles {
        let class = if is_good { "tile" } else { "tile bad" };
        let _ = writeln!(page, "<div class=\"{class}\"><b>{value}</b><span>{what}</span></div>");
    }
    page.push_str("</div>\n");
}

/// Colours of the stages.
fn legend(report: &Report) -> String {
    let mut text = "<div class=\"legend\">".to_owned();
    for (index, stage) in report.stages.iter().enumerate() {
        let (class, name) = (plots::colour(index), Escaped(&stage.name));
        let _ = write!(
            text,
            "<span><svg viewBox=\"0 0 10 10\"><rect class=\"{class}\" width=\"10\" height=\"10\"/></svg>{name}</span>"
        );
    }
    text + "</div>\n"
}

/// A panel for each stage and one for the whole.
fn spreads(report: &Report) -> Option<String> {
    let all = report.stages.iter().map(|stage| (stage.name.as_str(), &stage.latency)).chain([("total", &report.total)]);
    let all: Vec<_> = all.enumerate().filter(|(_, (_, times))| times.count() > 0).collect();
    let least = all.iter().filter_map(|(_, (_, times))| times.min()).min()?;
    let greatest = all.iter().filter_map(|(_, (_, times))| times.max()).max()?;
    let panels = all.into_iter().map(|(stage, (name, times))| plots::spread(name, stage, times, (least, greatest)));
    Some(format!("<div class=\"panels\">\n{}</div>\n", panels.collect::<String>()))
}

/// The table of percentiles.
fn figures(page: &mut String, report: &Report) {
    page.push_str("<h2>Figures</h2>\n<p>Milliseconds. A node counts in each stage that it has left behind; in <i>total</i> when it is done.</p>\n");
    page.push_str("<div class=\"scroll\"><table>\n<tr><th>stage</th><th>count</th><th>mean</th>");
    for (_, name) in PERCENTILES {
        let _ = write!(page, "<th>{name}</th>");
    }
    page.push_str("</tr>\n");
    let all = report.stages.iter().map(|stage| (stage.name.as_str(), &stage.latency)).chain([("total", &report.total)]);
    for (name, times) in all.filter(|(_, times)| times.count() > 0) {
        let mean = milliseconds(times.mean().unwrap_or_default());
        let _ = write!(page, "<tr><td>{}</td><td>{}</td><td>{mean}</td>", Escaped(name), times.count());
        for (per_mille, _) in PERCENTILES {
            let _ = write!(page, "<td>{}</td>", milliseconds(times.quantile(per_mille).unwrap_or_default()));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

/// Failures by reason, and the first nodes that failed.
fn failures(page: &mut String, report: &Report) {
    page.push_str("<h2>Failures</h2>\n");
    if report.failures.is_empty() {
        page.push_str("<p>None.</p>\n");
        return;
    }
    page.push_str("<table class=\"words\">\n");
    for (reason, count) in &report.failures {
        let _ = writeln!(page, "<tr><td class=\"bad\">{count}</td><td>{}</td></tr>", Escaped(reason));
    }
    page.push_str("</table>\n");
    if let Some(plot) = plots::nodes(report, &report.first_failed, "Where the first nodes that failed spent their time")
    {
        let _ = write!(page, "<p>The first nodes that failed:</p>\n{}{plot}<table class=\"words\">\n", legend(report));
        for node in &report.first_failed {
            let after = time_label(node.total_microseconds as f64 / 1e6);
            let reason = Escaped(node.failure.as_deref().unwrap_or_default());
            let _ = writeln!(page, "<tr><td>node {}</td><td>after {after}: {reason}</td></tr>", node.node);
        }
        page.push_str("</table>\n");
    }
}

/// The run's arguments and the machine.
fn place(page: &mut String, report: &Report) {
    let rows = |page: &mut String, rows: &mut dyn Iterator<Item = (&str, &str)>| {
        page.push_str("<table class=\"words\">\n");
        for (name, value) in rows {
            let _ = writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", Escaped(name), Escaped(value));
        }
        page.push_str("</table>\n");
    };
    if !report.run.arguments.is_empty() {
        page.push_str("<h2>Arguments</h2>\n");
        rows(page, &mut report.run.arguments.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
    let machine = &report.machine;
    let (processors, memory) = (machine.processors.to_string(), format!("{} MiB", machine.memory_kib >> 10));
    let about = [
        ("processor", machine.processor.as_str()),
        ("processors", &processors),
        ("memory", &memory),
        ("kernel", &machine.kernel),
        ("load average at the end", &machine.load_average),
    ];
    page.push_str("<h2>The machine that played the load</h2>\n");
    let limits = machine.limits.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    rows(page, &mut about.into_iter().chain(limits));
}

#[cfg(test)]
mod tests {
    use super::super::{Recorder, Run, sample};
    use super::*;

    #[test]
    fn the_page_is_whole_needs_nothing_and_shows_every_part() {
        let page = page(&sample(400));
        for outside in ["http://", "https://", "<script", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        for part in [
            "Stages of a boot",
            "Throughput",
            "Nodes by stage",
            "Latency by stage",
            "Stragglers",
            "Figures",
            "Failures",
        ] {
            assert!(page.contains(&format!("<h2>{part}</h2>")), "{part}");
        }
        assert_eq!(page.matches("<svg ").count(), page.matches("</svg>").count());
        assert!(!page.contains("NaN") && !page.contains("inf\""));
    }

    #[test]
    fn foreign_text_is_escaped_everywhere() {
        let page = page(&sample(60));
        assert!(page.contains("http 404 &lt;&amp;&quot;&#39;&gt;") && !page.contains("404 <&"));
    }

    #[test]
    fn a_run_without_anything_has_a_page() {
        let page = page(&Recorder::new(&["dns"]).into_report(Run::new("dns", None, 1)));
        assert!(page.contains("<p>None.</p>") && !page.contains("Stragglers") && !page.contains("NaN"));
    }
}
