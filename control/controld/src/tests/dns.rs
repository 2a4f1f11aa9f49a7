//! Zones and names follow networks, machines and their addresses, and serials only what has changed.

use bootstorm_snapshot::View;
use bootstorm_snapshot::dns::{DnsName, Name};
use serde_json::{Value, json};

use super::harness::{Rack, Site, mac, webhook};

fn name(text: &str) -> DnsName {
    text.parse().expect("a name")
}

/// Names with their first record's data as octets, in order; those of the zones' own servers left out.
fn records(view: &View) -> Vec<(String, Vec<u8>)> {
    let mut names: Vec<Name> = view.names.iter().collect();
    names.sort_by(|a, b| a.name.cmp(&b.name));
    let hosts = names.into_iter().filter(|name| !view.zones.contains_key(&name.name));
    hosts.map(|name| (name.name.to_string(), name.sets[0].data[0].0.clone())).collect()
}

fn serial(view: &View, zone: &str) -> u32 {
    view.zones[&name(zone)].serial
}

fn machine(name: &str, n: u8, address: &str) -> Value {
    json!({ "kind": "machine", "name": name, "macs": [mac(n).to_string()], "address": address,
            "power": { "driver": "webhook", "parameters": webhook() } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_follow_machines_and_serials_rise_with_what_has_changed() {
    let site = Site::start().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let network = json!([
        { "kind": "fabric", "name": "lab" },
        { "kind": "vlan", "fabric": "lab", "vid": 12 },
        { "kind": "subnet", "cidr": "10.8.0.0/23", "fabric": "lab", "vid": 12, "dns_servers": ["10.8.0.1"], "domain": "lab.test" },
        machine("n001", 1, "10.8.0.10"),
        machine("n002", 2, "10.8.1.20"),
    ]);
    rack.during(site.post("/apply", json!({ "documents": network }), 200)).await;
    rack.until("both names", |rack| rack.view.names.get(name("n002.lab.test").wire()).is_some()).await;
    let zones: Vec<String> = rack.view.zones.keys().map(DnsName::to_string).collect();
    assert_eq!(zones, ["0.8.10.in-addr.arpa", "1.8.10.in-addr.arpa", "lab.test"]);
    let target = |host: &str| name(host).wire().to_vec();
    assert_eq!(
        records(&rack.view),
        [
            ("10.0.8.10.in-addr.arpa".to_string(), target("n001.lab.test")),
            ("20.1.8.10.in-addr.arpa".to_string(), target("n002.lab.test")),
            ("ns.lab.test".to_string(), vec![10, 8, 0, 1]),
            ("n001.lab.test".to_string(), vec![10, 8, 0, 10]),
            ("n002.lab.test".to_string(), vec![10, 8, 1, 20]),
        ]
    );

    // A name that changes takes its reverse with it, and leaves the other's reverse zone alone.
    let before = rack.view.clone();
    rack.during(site.post("/apply", json!({ "documents": [machine("db", 1, "10.8.0.10")] }), 200)).await;
    rack.until("the new name", |rack| rack.view.names.get(name("db.lab.test").wire()).is_some()).await;
    let after = &rack.view;
    assert!(after.names.get(name("n001.lab.test").wire()).is_none());
    assert!(records(after).contains(&("10.0.8.10.in-addr.arpa".to_string(), target("db.lab.test"))));
    assert!(serial(after, "lab.test") > serial(&before, "lab.test"));
    assert!(serial(after, "0.8.10.in-addr.arpa") > serial(&before, "0.8.10.in-addr.arpa"));
    assert_eq!(serial(after, "1.8.10.in-addr.arpa"), serial(&before, "1.8.10.in-addr.arpa"));

    // What concerns no name changes no serial.
    let before = rack.view.clone();
    let range = json!({ "kind": "range", "subnet": "10.8.0.0/23", "type": "dynamic", "first": "10.8.0.100", "last": "10.8.0.200" });
    rack.during(site.post("/apply", json!({ "documents": [range] }), 200)).await;
    rack.until("the range", |rack| rack.view.generation > before.generation).await;
    assert_eq!((&rack.view.zones, &rack.view.names), (&before.zones, &before.names));

    // Serials go on after a new start.
    let directory = site.stop().await;
    let site = Site::start_in(directory, Default::default()).await;
    let mut rack = Rack::join(&site, "rack-2").await;
    rack.until("a view", |rack| !rack.view.names.is_empty()).await;
    for zone in before.zones.keys().map(DnsName::to_string) {
        assert!(serial(&rack.view, &zone) >= serial(&before, &zone), "{zone}");
    }
    site.stop().await;
}
