//! The plots of a report.

use std::time::Duration;

use super::super::{Histogram, NodeReport, Report, StageReport};
use super::svg::{Anchor, Axis, Drawing, label, time_label};

/// Width of a plot that goes across the page.
const WIDTH: f64 = 960.0;
/// Room at the left for names.
const LEFT: f64 = 120.0;
/// Room at the right for the last label.
const RIGHT: f64 = WIDTH - 30.0;
/// Colours there are; further stages begin again.
const COLOURS: usize = 10;

/// Class of a stage's colour.
pub fn colour(stage: usize) -> String {
    format!("c{}", stage % COLOURS)
}

fn seconds(times: &Histogram, per_mille: u32) -> f64 {
    times.quantile(per_mille).unwrap_or_default().as_secs_f64()
}

/// When nodes are in which stage: for each stage three bars, from the percentile of its beginnings to that of its ends.
pub fn stages(report: &Report) -> Option<String> {
    let stages: Vec<(usize, &StageReport)> =
        report.stages.iter().enumerate().filter(|(_, stage)| stage.ended.count() > 0).collect();
    let last = stages.iter().map(|(_, stage)| seconds(&stage.ended, 990)).reduce(f64::max)?;
    let (top, row) = (10.0, 44.0);
    let bottom = top + row * stages.len() as f64;
    let axis = Axis::from_zero(last, LEFT, RIGHT);
    let mut drawing = Drawing::new(WIDTH, bottom + 40.0, "When nodes are in which stage");
    drawing.axis_below(&axis, (top, bottom), "seconds after power-on", label);
    for (place, (index, stage)) in stages.into_iter().enumerate() {
        let y = top + row * place as f64 + 5.0;
        drawing.words("name", (LEFT - 8.0, y + 21.0), Anchor::End, &stage.name);
        for (line, (per_mille, name)) in [(500, "p50"), (900, "p90"), (990, "p99")].into_iter().enumerate() {
            let (began, ended) = (seconds(&stage.began, per_mille), seconds(&stage.ended, per_mille));
            let from = axis.place(began);
            let tooltip = format!("{} {name}: from {} to {}", stage.name, time_label(began), time_label(ended));
            let class = format!("{} {name}", colour(index));
            let shape = [from, y + 12.0 * line as f64, axis.place(ended) - from, 10.0];
            drawing.bar(&class, shape, &tooltip);
        }
    }
    Some(drawing.finish())
}

/// Bytes received a second.
pub fn throughput(report: &Report) -> Option<String> {
    let width = report.timeline.slot_milliseconds as f64 / 1e3;
    let values: Vec<f64> = report.timeline.bytes.iter().map(|bytes| *bytes as f64 / 1e6 / width).collect();
    series(&values, width, "MB/s", "Bytes received over time")
}

/// Nodes or exchanges that came to their end a second.
pub fn completions(report: &Report) -> Option<String> {
    let width = report.timeline.slot_milliseconds as f64 / 1e3;
    let values: Vec<f64> = report.timeline.done.iter().map(|done| *done as f64 / width).collect();
    series(&values, width, "done a second", "Completions over time")
}

fn series(values: &[f64], slot_seconds: f64, unit: &str, description: &str) -> Option<String> {
    let greatest = values.iter().copied().reduce(f64::max).filter(|greatest| *greatest > 0.0)?;
    let (top, bottom, left) = (28.0, 230.0, 70.0);
    let across = Axis::from_zero(values.len() as f64 * slot_seconds, left, RIGHT);
    let up = Axis::from_zero(greatest, bottom, top);
    let mut drawing = Drawing::new(WIDTH, bottom + 40.0, description);
    drawing.axis_below(&across, (top, bottom), "seconds of the run", label);
    drawing.axis_left(&up, (left, RIGHT), unit);
    let edges = values.iter().enumerate().flat_map(|(slot, value)| {
        let (from, to) = (slot as f64 * slot_seconds, (slot + 1) as f64 * slot_seconds);
        [(across.place(from), up.place(*value)), (across.place(to), up.place(*value))]
    });
    let end = across.place(values.len() as f64 * slot_seconds);
    let points = std::iter::once((left, bottom)).chain(edges).chain(std::iter::once((end, bottom)));
    drawing.area("c0", points, &format!("{description}: at most {} {unit}", label(greatest)));
    Some(drawing.finish())
}

/// How many nodes were in which stage at a time, one on top of the other.
pub fn live(report: &Report) -> Option<String> {
    let slots = report.timeline.len();
    let width = report.timeline.slot_milliseconds as f64 / 1e3;
    let sum = |slot: usize| report.timeline.live.iter().filter_map(|column| column.get(slot)).sum::<u64>() as f64;
    let greatest = (0..slots).map(sum).reduce(f64::max).filter(|greatest| *greatest > 0.0)?;
    let (top, bottom, left) = (28.0, 230.0, 70.0);
    let across = Axis::from_zero(slots as f64 * width, left, RIGHT);
    let up = Axis::from_zero(greatest, bottom, top);
    let mut drawing = Drawing::new(WIDTH, bottom + 40.0, "Nodes by stage over time");
    drawing.axis_below(&across, (top, bottom), "seconds of the run", label);
    drawing.axis_left(&up, (left, RIGHT), "nodes");
    let mut below = vec![0u64; slots];
    for (stage, (column, of)) in report.timeline.live.iter().zip(&report.stages).enumerate() {
        let above: Vec<u64> = below.iter().zip(column).map(|(below, live)| below + live).collect();
        if above != below {
            let point = |slot: usize, count: u64| (across.place((slot + 1) as f64 * width), up.place(count as f64));
            let forth = above.iter().enumerate().map(|(slot, count)| point(slot, *count));
            let back = below.iter().enumerate().rev().map(|(slot, count)| point(slot, *count));
            let most = column.iter().max().copied().unwrap_or(0);
            drawing.area(&colour(stage), forth.chain(back), &format!("{}: at most {most} nodes", of.name));
        }
        below = above;
    }
    Some(drawing.finish())
}

/// How the times of one stage are spread, on a logarithmic axis that all stages share.
pub fn spread(name: &str, stage: usize, times: &Histogram, (least, greatest): (Duration, Duration)) -> String {
    /// Bars across; finer ones would show the histogram's own buckets.
    const BARS: usize = 60;
    let (width, top, bottom, left, right) = (460.0, 34.0, 150.0, 26.0, 434.0);
    let across = Axis::decades(least.as_secs_f64(), greatest.as_secs_f64(), left, right);
    let mut bars = [0u64; BARS];
    for (from, to, count) in times.buckets() {
        let middle = f64::midpoint(from.as_secs_f64(), to.as_secs_f64()).max(1e-9);
        let part = (across.place(middle) - left) / (right - left);
        bars[((part * BARS as f64) as usize).min(BARS - 1)] += count;
    }
    let most = bars.iter().max().copied().unwrap_or(1).max(1);
    let mut drawing = Drawing::new(width, bottom + 24.0, &format!("Latency distribution of {name}"));
    drawing.axis_below(&across, (top, bottom), "", time_label);
    let bar_width = (right - left) / BARS as f64;
    for (index, count) in bars.into_iter().enumerate().filter(|(_, count)| *count > 0) {
        let height = (bottom - top) * count as f64 / most as f64;
        let share = 100.0 * count as f64 / times.count() as f64;
        let shape = [left + bar_width * index as f64, bottom - height, bar_width - 0.6, height];
        drawing.bar(&colour(stage), shape, &format!("{count} ({} %)", label(share)));
    }
    let mut words = format!("{} times", times.count());
    for (per_mille, percentile) in [(500, "p50"), (990, "p99"), (1_000, "max")] {
        let x = across.place(seconds(times, per_mille));
        drawing.line("mark", [x, top, x, bottom]);
        words += &format!(" · {percentile} {}", time_label(seconds(times, per_mille)));
    }
    drawing.words("name", (10.0, 12.0), Anchor::Start, name);
    drawing.words("tick", (10.0, 27.0), Anchor::Start, &words);
    drawing.finish()
}

/// Where some nodes spent their time: a row each.
pub fn nodes(report: &Report, nodes: &[NodeReport], description: &str) -> Option<String> {
    let last = nodes.iter().map(|node| node.total_microseconds as f64 / 1e6).reduce(f64::max)?;
    let (top, row) = (10.0, 19.0);
    let bottom = top + row * nodes.len() as f64;
    let axis = Axis::from_zero(last, LEFT, RIGHT - 60.0);
    let mut drawing = Drawing::new(WIDTH, bottom + 40.0, description);
    drawing.axis_below(&axis, (top, bottom), "seconds after power-on", label);
    for (place, node) in nodes.iter().enumerate() {
        let y = top + row * place as f64 + 3.0;
        drawing.words("tick", (LEFT - 8.0, y + 11.0), Anchor::End, &format!("node {}", node.node));
        for (name, from, to) in &node.spans {
            let stage = report.stages.iter().position(|stage| stage.name == *name).unwrap_or(0);
            let (from, to) = (*from as f64 / 1e6, *to as f64 / 1e6);
            let tooltip = format!("node {}, {name}: from {} to {}", node.node, time_label(from), time_label(to));
            let shape = [axis.place(from), y, axis.place(to) - axis.place(from), row - 5.0];
            drawing.bar(&colour(stage), shape, &tooltip);
        }
        let total = node.total_microseconds as f64 / 1e6;
        drawing.words("tick", (axis.place(total) + 5.0, y + 11.0), Anchor::Start, &time_label(total));
    }
    Some(drawing.finish())
}
