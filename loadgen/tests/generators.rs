//! The generators against a server that is not ours (dnsmasq) and against their answerers, a few dozen clients each.
//!
//! Each test has namespaces of its own (user, network, process), which end with it: a shell in them makes a veth pair to a second
//! network namespace, starts the server there, and runs the generator on this side.

use std::process::{Command, Stdio};

/// What every script begins with: two namespaces joined by a veth pair, `server COMMAND…` and `wait_for FILE TEXT`.
const PRELUDE: &str = r#"
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unshare --net sleep 300 &
peer=$!
there() { nsenter --net=/proc/$peer/ns/net "$@"; }
# The namespace is there when its list of interfaces is another one than ours.
until [ "$(readlink /proc/$peer/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add near0 type veth peer name far0
ip link set far0 netns $peer
ip addr add 10.77.0.2/16 dev near0
there ip addr add 10.77.0.1/16 dev far0
ip link set near0 up
there ip link set far0 up
there ip link set lo up
wait_for() { for _ in $(seq 500); do ! grep -q "$2" "$1" 2>/dev/null || return 0; sleep 0.02; done; cat "$1" >&2; return 1; }
dnsmasq_there() {
    # Without a daemon it stays who it is: in a user namespace there is nobody else.
    there dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --interface=far0 --bind-interfaces \
        --dhcp-leasefile="$work/leases" "$@" 2>"$work/log" &
    wait_for "$work/log" 'started, version'
}
answer_there() { there "$LOADGEN" answer "$@" & }
"#;

/// Runs a script in namespaces of its own and gives what it printed; `None` where the host does not allow such namespaces.
fn run(script: &str, needs: &[&str]) -> Option<String> {
    let namespaces = ["--user", "--map-root-user", "--net", "--mount-proc", "--pid", "--fork", "--kill-child"];
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(namespaces);
        command
    };
    if !unshare().arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        return None;
    }
    for tool in needs {
        let there = Command::new("sh").args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {tool}")]).output();
        assert!(
            there.is_ok_and(|output| output.status.success()),
            "there is no `{tool}`: run tests/lab/setup.sh, which installs it"
        );
    }
    let output = unshare()
        .args(["sh", "-c", &format!("PATH=$PATH:/usr/sbin:/sbin\n{PRELUDE}\n{script}")])
        .env("LOADGEN", env!("CARGO_BIN_EXE_loadgen"))
        .output()
        .expect("unshare was there before");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{out}\n{error}");
    Some(out.into_owned())
}

/// The count of a stage's row in the report's table.
fn count(out: &str, stage: &str) -> u64 {
    let row = out.lines().find(|line| line.split_whitespace().next() == Some(stage));
    row.and_then(|row| row.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

const DHCP: &str =
    "dnsmasq_there --port=0 --no-ping --dhcp-authoritative --dhcp-range=10.77.1.1,10.77.1.250,255.255.0.0,10m";

#[test]
fn dhcp_leases_renews_and_releases_at_dnsmasq() {
    let script = format!(
        r#"{DHCP}
"$LOADGEN" dhcp --interface near0 --clients 24 --rate 24/s --duration 3s --renew 1 --lost-after 5s
echo "leases $(wc -l <"$work/leases")"
"$LOADGEN" dhcp --interface near0 --clients 30 --rate 60/s --duration 1s --release --lost-after 5s --seed 2 || true
until [ "$(wc -l <"$work/leases")" = 24 ]; do sleep 0.02; done
"#
    );
    let Some(out) = run(&script, &["dnsmasq"]) else { return };
    // All begin with a lease of their own and then prolong it, twice.
    assert!(out.contains("dhcp: 72/72") && out.contains("leases 24"), "{out}");
    assert_eq!((count(&out, "exchange"), count(&out, "renewal")), (24, 48), "{out}");
    // dnsmasq offers one address to two at a time and refuses one of them then; every other exchange is answered.
    let naks =
        out.lines().find_map(|line| line.strip_suffix("request-ack: nak")?.split_whitespace().nth(1)?.parse().ok());
    assert!(out.contains(&format!("dhcp: {}/60", 60 - naks.unwrap_or(0u32))), "{out}");
    assert!(!out.contains("no offer") && !out.contains("no ack"), "{out}");
}

#[test]
fn dhcp_counts_what_nobody_answers() {
    let script = r#"! "$LOADGEN" dhcp --interface near0 --clients 10 --rate 20/s --duration 1s --lost-after 1s"#;
    let Some(out) = run(script, &[]) else { return };
    assert!(out.contains("dhcp: 0/20") && out.contains("discover-offer: "), "{out}");
}

#[test]
fn dns_checks_names_that_are_and_are_not_at_dnsmasq() {
    let script = r#"
for index in $(seq 0 49); do echo "192.0.2.$index h$index.example.test"; done >"$work/hosts"
dnsmasq_there --addn-hosts="$work/hosts" --local=/example.test/
"$LOADGEN" dns --server 10.77.0.1:53 --count 50 --rate 200/s --duration 2s --nxdomain 20% --random
! "$LOADGEN" dns --server 10.77.0.1:53 --count 51 --rate 102/s --duration 1s
"#;
    let Some(out) = run(script, &["dnsmasq"]) else { return };
    assert!(out.contains("dns: 400/400") && out.contains("dns: 100/102"), "{out}");
    assert!(out.contains("query: nxdomain"), "{out}");
}

#[test]
fn tftp_reads_from_dnsmasq_and_in_windows() {
    let script = r#"
mkdir "$work/files"
head -c 300000 /dev/zero >"$work/files/boot"
chmod -R a+rX "$work"
dnsmasq_there --port=0 --enable-tftp --tftp-root="$work/files"
"$LOADGEN" tftp --server 10.77.0.1:69 --file boot --clients 24 --rate 24/s --duration 1s --window 8
! "$LOADGEN" tftp --server 10.77.0.1:69 --file missing --clients 2 --rate 4/s --duration 1s
answer_there tftp --listen 10.77.0.1:6969 --bytes 1000001
"$LOADGEN" tftp --server 10.77.0.1:6969 --file any --clients 12 --rate 24/s --duration 1s --window 64 --gro
"#;
    let Some(out) = run(script, &["dnsmasq"]) else { return };
    assert!(out.contains("tftp: 0/4") && out.contains("FileNotFound"), "{out}");
    assert_eq!(out.matches("tftp: 24/24").count(), 2, "{out}");
}

#[test]
fn http_opens_and_keeps_connections() {
    let script = r#"
answer_there http --listen 10.77.0.1:80 --bytes 8000
until [ -n "$(there ss --no-header --listening --tcp 'sport = :80')" ]; do sleep 0.02; done
"$LOADGEN" http --url http://10.77.0.1/x --connections 24 --rate 240/s --duration 1s
"$LOADGEN" http --url http://10.77.0.1/x --connections 24 --rate 48/s --duration 1s --close --bodies copy
"#;
    let Some(out) = run(script, &[]) else { return };
    assert!(out.contains("http: 240/240") && out.contains("http: 48/48"), "{out}");
    // One connection for each request, where it is closed.
    assert!(out.lines().any(|line| line.starts_with("connect ") && line.contains(" 48 ")), "{out}");
}

#[test]
fn dhcp6_leases_renews_and_releases_at_dnsmasq() {
    let script = r#"
there ip addr add fd00:77::1/64 dev far0 nodad
link_local() { "$@" ip -6 addr show scope link | grep -v tentative | grep -q inet6; }
until link_local && link_local there; do sleep 0.05; done
dnsmasq_there --port=0 --dhcp-range=fd00:77::1000,fd00:77::1fff,64,10m --dhcp-option=option6:bootfile-url,tftp://[fd00:77::1]/boot
"$LOADGEN" dhcp6 --interface near0 --clients 24 --rate 24/s --duration 3s --renew 1 --lost-after 5s --boot
"$LOADGEN" dhcp6 --interface near0 --clients 24 --rate 48/s --duration 1s --release --duid uuid --lost-after 5s --seed 2
"#;
    let Some(out) = run(script, &["dnsmasq"]) else { return };
    assert!(out.contains("dhcp6: 72/72") && out.contains("dhcp6: 48/48"), "{out}");
    assert_eq!((count(&out, "exchange"), count(&out, "renewal")), (24, 48), "{out}");
}
