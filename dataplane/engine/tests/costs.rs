//! What addresses cost, measured and printed: `cargo test --release -p bootstorm-engine --test costs -- --ignored --nocapture`.
//! Nothing is compared with a fixed time; the goals are checked by `make bench-dhcp` beside other servers.
#![allow(clippy::disallowed_types, clippy::disallowed_methods, reason = "time is what is measured here")]

#[path = "support/dhcp.rs"]
mod clients;
mod support;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use bootstorm_engine::{Engine, Index, Output};
use bootstorm_journal::{Journal, OnDamage};
use bootstorm_proto::dhcp::options::MessageType;
use bootstorm_snapshot::record::{Record, Subnet};
use bootstorm_snapshot::{Ipv4Range, Mac, SubnetId, View};
use clients::*;
use support::*;

fn wide() -> View {
    let mut view = site();
    let dynamic = vec![Ipv4Range { first: [10, 16, 0, 0].into(), last: [10, 31, 255, 255].into() }];
    let subnet = view.subnets[&SubnetId(1)].clone();
    view.put(Record::Subnet(Subnet { cidr: "10.0.0.0/8".parse().expect("net"), dynamic, ..subnet }));
    view
}

/// Gives `count` new clients a lease; every 25th exchange ends a batch.
fn storm(rack: &mut Rack, count: u32) {
    rack.prompt = false;
    let (mut acknowledged, mut offered) = (0u32, 0u32);
    for n in 0..count {
        let [_, a, b, c] = n.to_be_bytes();
        let mac = Mac([2, 9, 9, a, b, c]);
        let offer = rack.hear(at(u64::from(n / 16)), &say(MessageType::Discover, mac)).into_iter().find_map(|output| {
            let Output::Dhcp { bytes, .. } = output else { return None };
            bytes.get(16..20).and_then(|octets| <[u8; 4]>::try_from(octets).ok()).map(Ipv4Addr::from)
        });
        offered += u32::from(offer.is_some());
        let select = Say { requested: offer, server: Some(RACK), ..say(MessageType::Request, mac) };
        acknowledged += u32::try_from(rack.hear(at(u64::from(n / 16)), &select).len()).expect("few");
        if n % 25 == 0 {
            rack.commit();
            acknowledged += u32::try_from(rack.drain().len()).expect("few");
            // Control applies what it is told, so that the spool stays short.
            rack.engine.handle_acknowledged(u64::MAX);
            rack.drain();
            rack.journal.drain(..rack.journal.len().saturating_sub(1));
        }
    }
    rack.commit();
    acknowledged += u32::try_from(rack.drain().len()).expect("few");
    assert_eq!((offered, acknowledged), (count, count));
}

#[test]
#[ignore = "a measurement"]
fn an_exchange() {
    let mut rack = Rack::new(wide());
    storm(&mut rack, 10_000);
    let mut rack = Rack::new(wide());
    let started = Instant::now();
    storm(&mut rack, 100_000);
    println!("100,000 exchanges in the engine, messages of clients included: {:?} each", started.elapsed() / 100_000);
}

#[test]
#[ignore = "a measurement"]
fn a_million_leases_are_compacted_and_read_again() {
    let count = 1_000_000;
    let mut rack = Rack::new(wide());
    storm(&mut rack, count);
    let directory = std::env::temp_dir().join(format!("bootstorm-costs-{}", std::process::id()));
    let (mut journal, _) = Journal::open_directory(&directory, OnDamage::Refuse).expect("a new journal");
    let started = Instant::now();
    let mut turn = std::time::Duration::ZERO;
    let mut is_whole = false;
    while !is_whole {
        let begun = Instant::now();
        is_whole = rack.engine.gather_live_records(4_096);
        turn = turn.max(begun.elapsed());
    }
    let begun = Instant::now();
    let live = rack.engine.live_records();
    turn = turn.max(begun.elapsed());
    journal.begin_compaction(live).expect("begun");
    let mut longest = std::time::Duration::ZERO;
    let bytes = loop {
        let step = Instant::now();
        let done = journal.step_compaction().expect("written");
        longest = longest.max(step.elapsed());
        if let Some(committed) = done {
            break committed.segment_bytes;
        }
    };
    let all = started.elapsed();
    println!(
        "compaction of {count} leases: {turn:?} a turn on shard 0, {longest:?} between two commits, {all:?} in all, {bytes} bytes"
    );
    drop(journal);
    let started = Instant::now();
    let (_, recovered) = Journal::open_directory(&directory, OnDamage::Refuse).expect("the journal");
    let opened = started.elapsed();
    let index = Arc::new(Index::new(wide()));
    let engine = Engine::recover(at(0), config(), index, recovered.last_sequence, recovered.records()).expect("ours");
    println!("reload of {count} leases: {opened:?} from the disk, {:?} in all", started.elapsed());
    assert_eq!(engine.stats().leases, count as usize);
    std::fs::remove_dir_all(&directory).expect("removed");
}
