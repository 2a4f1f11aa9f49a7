//! The comparison: the same load on each, one after the other, again and again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The runtimes, ours first.
const RUNTIMES: [&str; 3] = ["driver", "tokio-uring", "tokio"];

/// A case: its name, what wrk is told, its connections, and what CPU time is counted for.
struct Case {
    name: &'static str,
    path: &'static str,
    connections: u32,
    unit: Unit,
}

#[derive(Clone, Copy)]
enum Unit {
    Request,
    Gigabyte,
}

const CASES: [Case; 3] = [
    Case { name: "1k-keepalive-64", path: "1k", connections: 64, unit: Unit::Request },
    Case { name: "1k-keepalive-1000", path: "1k", connections: 1_000, unit: Unit::Request },
    Case { name: "bulk-16", path: "bulk", connections: 16, unit: Unit::Gigabyte },
];

/// The load's own count, on one line: requests and octets.
const COUNT: &str = "function done(summary, latency, requests)\n\
                     io.write('COUNT ', summary.requests, ' ', string.format('%.0f', summary.bytes), '\\n')\nend\n";

/// The processors of server and client.
const SERVER: &str = "0";
const CLIENT: &str = "1";

struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn start(runtime: &str) -> Result<Server, Box<dyn std::error::Error>> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", SERVER]).arg(std::env::current_exe()?).arg(runtime).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let port = line.trim().parse().map_err(|_| format!("`{runtime}` does not say its port"))?;
    Ok(Server { child, port })
}

/// Processor time of all threads of a process, seconds.
fn processor_seconds(id: u32) -> std::io::Result<f64> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanoseconds += text.split(' ').next().and_then(|first| first.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Processor seconds of the server for a unit of the case.
fn measure(server: &Server, case: &Case, seconds: u32, script: &str) -> Result<f64, Box<dyn std::error::Error>> {
    let before = processor_seconds(server.child.id())?;
    let url = format!("http://127.0.0.1:{}/{}", server.port, case.path);
    let mut wrk = Command::new("taskset");
    wrk.args(["--cpu-list", CLIENT, "wrk", "--threads", "1", "--connections", &case.connections.to_string()]);
    wrk.args(["--duration", &format!("{seconds}s"), "--script", script, &url]);
    let output = wrk.output()?;
    let used = processor_seconds(server.child.id())? - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = text.lines().find_map(|line| line.strip_prefix("COUNT ")?.split_once(' '));
    let (requests, bytes) = count.ok_or_else(|| format!("wrk says `{}`", text.trim()))?;
    let units = match case.unit {
        Unit::Request => requests.parse::<f64>()?,
        Unit::Gigabyte => bytes.parse::<f64>()? / 1e9,
    };
    if units > 0.0 { Ok(used / units) } else { Err("nothing was served".into()) }
}

fn median(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[sorted.len() / 2], sorted[0], sorted[sorted.len() - 1])
}

/// Runs all and prints medians with their spread, and ratios pair by pair: ours to the other's of the same round.
pub fn compare(pairs: usize, seconds: u32) -> Result<(), Box<dyn std::error::Error>> {
    if pairs == 0 || seconds == 0 {
        return Err("at least one pair of one second".into());
    }
    let script = std::env::temp_dir().join(format!("runtimes-{}.lua", std::process::id()));
    fs::write(&script, COUNT)?;
    let shown = script.display().to_string();
    let result = compare_all(pairs, seconds, &shown);
    fs::remove_file(&script)?;
    result
}

fn compare_all(pairs: usize, seconds: u32, script: &str) -> Result<(), Box<dyn std::error::Error>> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg")?;
    println!("processor{}, load {}", model.trim_end(), load.trim());
    println!("{pairs} rounds of {seconds} s, server on processor {SERVER}, wrk on {CLIENT}");
    let servers = RUNTIMES.iter().map(|runtime| start(runtime)).collect::<Result<Vec<_>, _>>()?;
    for case in &CASES {
        let mut figures: Vec<Vec<f64>> = vec![Vec::new(); RUNTIMES.len()];
        for round in 0..pairs {
            // Who is first changes, so that nobody always has the coldest caches.
            for place in 0..RUNTIMES.len() {
                let which = (place + round) % RUNTIMES.len();
                figures[which].push(measure(&servers[which], case, seconds, script)?);
            }
        }
        let (factor, unit) = match case.unit {
            Unit::Request => (1e6, "us/request"),
            Unit::Gigabyte => (1.0, "s/GB"),
        };
        for (runtime, values) in RUNTIMES.iter().zip(&figures) {
            let (middle, least, most) = median(values);
            let ratios: Vec<f64> = figures[0].iter().zip(values).map(|(ours, other)| ours / other).collect();
            let (ratio, low, high) = median(&ratios);
            println!(
                "{:<18} {runtime:<12} {:>7.3} {unit} ({:.3}-{:.3}), ours to this {ratio:.2} ({low:.2}-{high:.2})",
                case.name,
                middle * factor,
                least * factor,
                most * factor,
            );
        }
    }
    Ok(())
}
