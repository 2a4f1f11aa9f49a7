//! `apply`: declarative, idempotent, all or nothing.

use serde_json::{Value, json};

use super::harness::{Rack, Site, mac, webhook};

fn outcomes(answer: &Value) -> Vec<String> {
    answer["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| change["outcome"].as_str().expect("text").to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_are_applied_once_and_a_dry_run_changes_nothing() {
    let site = Site::start().await;
    let documents = json!([
        { "kind": "machine", "name": "n001", "macs": [mac(1).to_string()], "address": "10.8.0.10",
          "power": { "driver": "webhook", "parameters": webhook() } },
        { "kind": "range", "subnet": "10.8.0.0/24", "type": "dynamic", "first": "10.8.0.100", "last": "10.8.0.200" },
        { "kind": "subnet", "cidr": "10.8.0.0/24", "fabric": "lab", "vid": 12, "gateway": "10.8.0.1", "dns_servers": ["10.8.0.1"] },
        { "kind": "vlan", "fabric": "lab", "vid": 12, "mtu": 9000 },
        { "kind": "fabric", "name": "lab" },
    ]);
    let dry = site.post("/apply", json!({ "documents": documents, "dry_run": true }), 200).await;
    assert_eq!(outcomes(&dry), ["created"; 5]);
    assert_eq!(site.get("/fabrics").await["items"], json!([]));
    let applied = site.post("/apply", json!({ "documents": documents }), 200).await;
    assert_eq!(outcomes(&applied), ["created"; 5]);
    assert_eq!(applied["changes"][2]["what"], "subnet 10.8.0.0/24");
    let again = site.post("/apply", json!({ "documents": documents }), 200).await;
    assert_eq!(outcomes(&again), ["unchanged"; 5]);
    let vlans = site.get("/vlans").await;
    assert_eq!((&vlans["items"][0]["fabric"], &vlans["items"][0]["mtu"]), (&json!("lab"), &json!(9000)));
    let subnets = site.get("/subnets").await;
    assert_eq!((&subnets["items"][0]["used"], &subnets["items"][0]["gateway"]), (&json!(1), &json!("10.8.0.1")));
    assert_eq!(site.get("/machines/n001").await["interfaces"][0]["addresses"], json!(["10.8.0.10"]));

    let mut changed = documents.as_array().expect("documents").clone();
    changed[3]["mtu"] = json!(1500);
    changed[0]["power"]["parameters"]["power_token"] = json!("very secret");
    let answer = site.post("/apply", json!({ "documents": changed }), 200).await;
    assert_eq!(outcomes(&answer), ["changed", "unchanged", "unchanged", "changed", "unchanged"]);
    assert!(!answer.to_string().contains("very secret"));
    assert!(answer["changes"][3]["fields"][0].as_str().is_some_and(|field| field.contains("9000 → 1500")), "{answer}");
    let mut rack = Rack::join(&site, "rack-1").await;
    rack.until("the reservation", |rack| rack.view.reservations.contains_key(&mac(1))).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_document_stops_all() {
    let site = Site::start().await;
    let fabric = json!({ "kind": "fabric", "name": "lab" });
    let subnet = json!({ "kind": "subnet", "cidr": "10.8.0.0/24", "fabric": "lab" });
    let range = |first: &str, last: &str| json!({ "kind": "range", "subnet": "10.8.0.0/24", "type": "dynamic", "first": first, "last": last });
    let machine = json!({ "kind": "machine", "name": "a", "macs": [mac(1).to_string()] });
    let cases = [
        json!([fabric, { "kind": "subnet", "cidr": "10.8.0.1/24", "fabric": "lab" }]),
        json!([fabric, { "kind": "subnet", "cidr": "10.8.0.0/24", "fabric": "other" }]),
        json!([fabric, { "kind": "subnet", "cidr": "10.8.0.0/24", "fabric": "lab", "vid": 7 }]),
        json!([fabric, { "kind": "subnet", "cidr": "10.8.0.0/24", "fabric": "lab", "gateway": "10.9.0.1" }]),
        json!([fabric, subnet, { "kind": "subnet", "cidr": "10.8.0.0/25", "fabric": "lab" }]),
        json!([fabric, subnet, range("10.8.0.50", "10.8.0.10")]),
        json!([fabric, subnet, range("10.9.0.50", "10.9.0.60")]),
        json!([fabric, subnet, range("10.8.0.10", "10.8.0.50"), range("10.8.0.50", "10.8.0.60")]),
        json!([fabric, { "kind": "vlan", "fabric": "lab", "vid": 4095 }]),
        json!([fabric, { "kind": "vlan", "fabric": "lab", "vid": 1, "mtu": 10 }]),
        json!([fabric, { "kind": "vlan", "fabric": "lab", "vid": 1, "colour": "red" }]),
        json!([fabric, { "kind": "mystery" }]),
        json!([fabric, machine, { "kind": "machine", "name": "b", "macs": [mac(1).to_string()] }]),
        json!([fabric, { "kind": "machine", "name": "b", "macs": ["nonsense"] }]),
        json!([fabric, subnet, { "kind": "machine", "name": "b", "macs": [mac(2).to_string()], "address": "10.8.0.255" }]),
    ];
    for documents in cases {
        let (status, problem) = site.send("POST", "/apply", Some(json!({ "documents": documents }))).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid")), "{documents}: {problem}");
    }
    assert_eq!(site.get("/fabrics").await["items"], json!([]));
    assert_eq!(site.get("/machines").await["items"], json!([]));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_known_machine_is_renamed_by_one_document_and_never_described_by_two() {
    let site = Site::start().await;
    let machine = |name: &str| json!({ "kind": "machine", "name": name, "macs": [mac(1).to_string()] });
    site.post("/apply", json!({ "documents": [machine("a")] }), 200).await;
    let twice = json!({ "documents": [machine("b"), machine("c")] });
    let (status, problem) = site.send("POST", "/apply", Some(twice)).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid")), "{problem}");
    assert_eq!(site.get("/machines/a").await["name"], "a");
    let renamed = site.post("/apply", json!({ "documents": [machine("b")] }), 200).await;
    assert_eq!(outcomes(&renamed), ["changed"]);
    assert_eq!(site.get("/machines/b").await["name"], "b");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_racks_network_is_served_without_a_document_and_a_document_wins() {
    let site = Site::start().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    rack.until("a subnet", |rack| rack.view.subnets.len() == 1).await;
    let subnet = rack.view.subnets.values().next().expect("one").clone();
    assert_eq!((subnet.cidr.to_string().as_str(), subnet.dhcp, subnet.dynamic.len()), ("10.7.0.0/24", true, 1));
    let documents = json!([
        { "kind": "fabric", "name": "fabric-0" },
        { "kind": "subnet", "cidr": "10.7.0.0/24", "fabric": "fabric-0", "gateway": "10.7.0.1" },
        { "kind": "range", "subnet": "10.7.0.0/24", "type": "dynamic", "first": "10.7.0.100", "last": "10.7.0.199" },
    ]);
    let answer = rack.during(site.post("/apply", json!({ "documents": documents }), 200)).await;
    assert_eq!(outcomes(&answer), ["unchanged", "changed", "created"]);
    let ranges = site.get("/ranges").await;
    assert_eq!(ranges["items"].as_array().map(Vec::len), Some(1), "{ranges}");
    site.stop().await;
}
