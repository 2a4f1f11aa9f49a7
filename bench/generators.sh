#!/usr/bin/env bash
# What the generators of loadgen cost themselves, beside perfdhcp, dnsperf and wrk.
#
# Each generator meets the same answerer (`loadgen answer`, which knows one answer and does nothing else) over a veth pair
# between two network namespaces: the generator on one core, the answerer on another, the generators in turns. The figure is
# what came to a good end, by CPU second of the generator alone (user and system, as `wait` tells it).
#
# Usage: generators.sh [dhcp|dns|http|tftp ...]   (PAIRS=5, SECONDS_EACH=4; needs root, and release binaries of loadgen)
# Prints `GENERATOR CASE NAME MEDIAN [NAME MEDIAN] per core-second` and the spread, and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

pairs=${PAIRS:-5}
seconds=${SECONDS_EACH:-4}
cores=(${CORES:-0 1})
loadgen=${CARGO_TARGET_DIR:-target}/release/loadgen
server=10.255.255.254
cases=("$@")
[ ${#cases[@]} -gt 0 ] || cases=(dhcp dns http tftp)

die() {
    echo "generators: $*" >&2
    exit 1
}

[ "$(id -u)" -eq 0 ] || die "needs root, for network namespaces"
[ "$pairs" -ge 1 ] && [ "$seconds" -ge 1 ] || die "PAIRS and SECONDS_EACH are numbers above zero"
[ -x "$loadgen" ] || die "there is no $loadgen: run \`cargo build --release -p loadgen\`"
for tool in ip taskset perfdhcp dnsperf wrk; do
    command -v "$tool" >/dev/null || die "there is no \`$tool\`: install iproute2, util-linux, kea-admin, dnsperf, wrk"
done

here=gen-c$$ there=gen-s$$ near=gc$$ far=gs$$
work=$(mktemp -d)
answerer=
stop_answerer() {
    [ -z "$answerer" ] || kill "$answerer" 2>/dev/null || true
    [ -z "$answerer" ] || wait "$answerer" 2>/dev/null || true
    answerer=
}
cleanup() {
    stop_answerer
    ip netns del "$here" 2>/dev/null || true
    ip netns del "$there" 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

ip netns add "$here"
ip netns add "$there"
ip link add "$near" netns "$here" type veth peer name "$far" netns "$there"
ip -n "$here" addr add 10.0.0.1/8 dev "$near"
ip -n "$there" addr add $server/8 dev "$far"
for namespace in "$here $near" "$there $far"; do
    read -r name interface <<<"$namespace"
    ip -n "$name" link set lo up
    ip -n "$name" link set "$interface" up
done

# Runs the generator on its core and leaves its CPU seconds in $work/cpu and its output in $work/out.
measured() {
    # The shell's `time` counts what it waited for: the generator, started by way of two programs that replace themselves.
    TIMEFORMAT='%U %S'
    { time ip netns exec "$here" taskset -c "${cores[0]}" "$@" >"$work/out" 2>"$work/errors" || true; } 2>"$work/cpu"
}

# Prints the count given by the CPU seconds of the last run.
per_core_second() {
    awk -v count="$1" '{ cpu = $1 + $2; if (cpu > 0 && count > 0) printf "%.0f\n", count / cpu }' "$work/cpu"
}

# What the last line `CASE: DONE/BEGUN` of loadgen says is done.
done_by_loadgen() {
    awk -F '[ /]' '{ last = $2 } END { print last + 0 }' "$work/out"
}

run_case() {
    case "$1 $2" in
    "dhcp loadgen")
        measured "$loadgen" dhcp --interface "$near" --clients 1000000 --rate "$dhcp_rate/s" --duration "$seconds"
        per_core_second "$(done_by_loadgen)"
        ;;
    "dhcp perfdhcp")
        # Machines by MAC address (-R), a link of no relay (-l), for so long (-p); Ack packets are whole exchanges.
        measured perfdhcp -4 -l "$near" -r "$perfdhcp_rate" -R 1000000 -p "$seconds" $server
        per_core_second "$(awk '/REQUEST-ACK/ { within = 1 } within && /received packets/ { print $3; exit }' "$work/out")"
        ;;
    "dns loadgen")
        measured "$loadgen" dns --server $server:53 --names "$work/names" --outstanding 100 --duration "$seconds"
        per_core_second "$(done_by_loadgen)"
        ;;
    "dns dnsperf")
        measured dnsperf -s $server -d "$work/names" -c 16 -q 100 -T 1 -l "$seconds"
        per_core_second "$(awk '/Queries completed/ { print $3 }' "$work/out")"
        ;;
    "http loadgen")
        measured "$loadgen" http --url "http://$server/x" --connections 64 --duration "$seconds" --bodies copy
        per_core_second "$(done_by_loadgen)"
        ;;
    "http wrk")
        measured wrk -t 1 -c 64 -d "${seconds}s" "http://$server/x"
        per_core_second "$(awk '/requests in/ { print $1 }' "$work/out")"
        ;;
    "tftp loadgen")
        # No peer reads TFTP by the hundred; the unit is a mebibyte.
        measured "$loadgen" tftp --server $server:69 --file x --clients 50 --window 64 --gro --duration "$seconds"
        per_core_second "$(($(done_by_loadgen) * 16))"
        ;;
    *) die "no case $1 with $2" ;;
    esac
}

# Median, least and greatest of the numbers on standard input.
spread() {
    sort -n | awk '{ value[NR] = $1 } END { if (NR) print value[int((NR + 1) / 2)], value[1], value[NR]; else print "none" }'
}

# The highest rate that a generator reaches alone is found by itself; the rates here are below it, so that CPU time is what differs.
dhcp_rate=${DHCP_RATE:-16000}
perfdhcp_rate=${PERFDHCP_RATE:-$dhcp_rate}
for index in $(seq 0 19999); do echo "h$index.example.test A"; done >"$work/names"

for case in "${cases[@]}"; do
    case $case in
    dhcp) names=(loadgen perfdhcp) answer=(dhcp --interface "$far") ;;
    dns) names=(loadgen dnsperf) answer=(dns --listen $server:53) ;;
    http) names=(loadgen wrk) answer=(http --listen $server:80 --bytes 1024) ;;
    tftp) names=(loadgen) answer=(tftp --listen $server:69 --bytes $((16 << 20))) ;;
    *) die "there is no case \`$case\`: dhcp, dns, http or tftp" ;;
    esac
    ip netns exec "$there" taskset -c "${cores[1]}" "$loadgen" answer "${answer[@]}" &
    answerer=$!
    # It is there when it answers: the first run of each pair is preceded by one that does not count.
    until run_case "$case" loadgen >/dev/null && [ "$(done_by_loadgen)" -gt 0 ]; do
        kill -0 "$answerer" 2>/dev/null || die "the answerer for $case has ended"
    done
    for name in "${names[@]}"; do : >"$work/$case-$name"; done
    for _ in $(seq "$pairs"); do
        for name in "${names[@]}"; do run_case "$case" "$name" >>"$work/$case-$name"; done
    done
    stop_answerer
    line="GENERATOR $case" detail=
    for name in "${names[@]}"; do
        read -r median least greatest < <(spread <"$work/$case-$name")
        line+=" $name $median"
        detail+=" $name $least-$greatest of $(wc -l <"$work/$case-$name")"
    done
    echo "$line per core-second"
    echo "  spread:$detail"
done
