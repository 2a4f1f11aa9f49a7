//! Other people's HTTP and TFTP clients against `bootstorm serve`: what they bring home is compared octet by octet.

mod support;

use std::path::Path;

use support::{Server, free_ports, noise, run_client};

/// What is in the client's directory before it starts.
enum Before {
    Nothing,
    /// The first half of the file, to be completed.
    Half,
}

/// Runs a client that writes `out` and compares it with what it should have got.
fn fetch(name: &str, line: &str, before: Before, file: &[u8], expected: &[u8]) -> Result<(), String> {
    let directory = tempfile::tempdir().expect("directory");
    let out = directory.path().join("out");
    match before {
        Before::Nothing => {}
        Before::Half => std::fs::write(&out, &file[..file.len() / 2]).expect("written"),
    }
    // A no-break space stands for one inside a word.
    let words: Vec<String> = line.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
    run_client(directory.path(), &words).map_err(|error| format!("{name}: `{line}`: {error}"))?;
    let got = std::fs::read(&out).map_err(|error| format!("{name}: `{line}` left nothing: {error}"))?;
    if got == expected {
        return Ok(());
    }
    let at = got.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(got.len().min(expected.len()));
    Err(format!("{name}: `{line}` got {} octets of {}, the first wrong one at {at}", got.len(), expected.len()))
}

/// Has wrk ask for a second, on eight connections that it keeps, and compares each body.
fn load(name: &str, url: &str, file: &[u8]) -> Result<(), String> {
    const SCRIPT: &str = "\
local file = io.open('expected', 'rb')
local expected = file:read('*a')
file:close()
wrong, right = 0, 0
function response(status, headers, body)
    if status == 200 and body == expected then right = right + 1 else wrong = wrong + 1 end
end
local threads = {}
function setup(thread) table.insert(threads, thread) end
function done(summary, latency, requests)
    local errors = summary.errors
    local lost = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    local out = io.open('out', 'w')
    out:write(string.format('%d wrong, %d lost, %s', threads[1]:get('wrong'), lost,
        threads[1]:get('right') > 0 and 'some right' or 'none right'))
    out:close()
end
";
    let directory = tempfile::tempdir().expect("directory");
    let place = directory.path();
    std::fs::write(place.join("expected"), file).expect("written");
    std::fs::write(place.join("load.lua"), SCRIPT).expect("written");
    let words = ["wrk", "-t", "1", "-c", "8", "-d", "1s", "-s", "load.lua", url].map(str::to_owned);
    run_client(place, &words).map_err(|error| format!("{name}: wrk: {error}"))?;
    match std::fs::read_to_string(place.join("out")) {
        Ok(told) if told == "0 wrong, 0 lost, some right" => Ok(()),
        told => Err(format!("{name}: wrk: {told:?}")),
    }
}

fn served(files: &Path) -> Vec<(&'static str, Vec<u8>)> {
    // A length between blocks, a whole number of them, more than 65,535 of 512 octets, and one octet.
    let list = [
        ("boot/kernel", noise(5_000_001, 1)),
        ("blocks", noise(512 * 64, 2)),
        ("wraps", noise(34_000_000, 3)),
        ("one", vec![7]),
    ];
    std::fs::create_dir_all(files.join("boot")).expect("made");
    for (name, bytes) in &list {
        std::fs::write(files.join(name), bytes).expect("written");
    }
    list.into()
}

#[test]
#[ignore = "needs clients and the built program: make test"]
fn http_and_tftp_clients_bring_every_octet_home() {
    let directory = tempfile::tempdir().expect("directory");
    let files = directory.path().join("files");
    let list = served(&files);
    let server = Server::start(&files, &directory.path().join("data"), free_ports());
    let (http, host, port) = (server.http, server.tftp.ip(), server.tftp.port());
    let mut failures = Vec::new();
    let mut check = |result: Result<(), String>| failures.extend(result.err());
    for (name, bytes) in &list {
        let url = format!("http://{http}/{name}");
        for line in [
            format!("curl -sSf -o out {url}"),
            format!("curl -sSf --http1.0 -o out {url}"),
            format!("wget -q -O out {url}"),
            format!("busybox wget -q -O out {url}"),
            format!("aria2c -q -x 4 -s 4 -k 1M -o out {url}"),
        ] {
            check(fetch(name, &line, Before::Nothing, bytes, bytes));
        }
        check(load(name, &url, bytes));
        // What is one octet long has no half.
        if bytes.len() > 1 {
            let middle = bytes.len() / 2;
            for line in [
                format!("curl -sSf -C - -o out {url}"),
                format!("wget -q -c -O out {url}"),
                format!("busybox wget -q -c -O out {url}"),
                format!("aria2c -q -c -o out {url}"),
            ] {
                check(fetch(name, &line, Before::Half, bytes, bytes));
            }
            let parts = [
                (format!("{middle}-"), &bytes[middle..]),
                ("0-0".to_owned(), &bytes[..1]),
                (format!("5-{middle}"), &bytes[5..=middle]),
                ("-17".to_owned(), &bytes[bytes.len() - 17..]),
            ];
            for (range, part) in parts {
                check(fetch(name, &format!("curl -sSf -r {range} -o out {url}"), Before::Nothing, bytes, part));
            }
        }
        let tftp = format!("tftp://{host}:{port}/{name}");
        let mut lines = vec![
            format!("curl -sSf --tftp-blksize 1468 -o out {tftp}"),
            format!("atftp -g -r {name} -l out --option blksize\u{a0}1468 --option windowsize\u{a0}16 {host} {port}"),
            format!("busybox tftp -g -b 1468 -r {name} -l out {host} {port}"),
        ];
        // One block of 512 octets at a time takes a while, and not every client counts beyond 65,535 blocks.
        if bytes.len() < 32 << 20 {
            lines.extend([
                format!("curl -sSf -o out {tftp}"),
                format!("curl -sSf --tftp-no-options -o out {tftp}"),
                format!("atftp -g -r {name} -l out {host} {port}"),
                format!("tftp -m binary {host} {port} -c get {name} out"),
                format!("busybox tftp -g -r {name} -l out {host} {port}"),
            ]);
        }
        for line in lines {
            check(fetch(name, &line, Before::Nothing, bytes, bytes));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
