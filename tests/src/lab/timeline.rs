//! A boot trace as people read it: one line and one bar for each stage.

use std::fmt::Write as _;

use bootstorm_api::native::Explanation;

/// Columns of the bars.
const BAR_COLUMNS: i64 = 40;

/// The trace of a machine's last operation, in seconds since the operation began; bars end at the last stage.
pub fn timeline(explanation: &Explanation) -> String {
    let end = explanation.trace.iter().map(|span| span.since_start_ms).max().unwrap_or(0).max(1);
    explanation.trace.iter().fold(String::new(), |mut text, span| {
        let columns = (span.since_start_ms * BAR_COLUMNS / end).clamp(0, BAR_COLUMNS);
        let bar = "█".repeat(usize::try_from(columns).unwrap_or(0));
        let stage = format!("{:?}", span.stage).to_lowercase();
        let (seconds, rest) = (span.since_start_ms / 1000, span.since_start_ms % 1000 / 10);
        // Writing to a string does not fail.
        let _ = writeln!(text, "    {seconds:4}.{rest:02} s  {stage:<10} {bar:<40} {}", span.detail);
        text
    })
}
