//! Requests that must change nothing.

use bootstorm_api::link::ToControl;
use bootstorm_snapshot::{Observation, Observed};
use serde_json::{Value, json};

use super::harness::{Rack, Site, mac, webhook};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_refused_with_a_code_and_change_nothing() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    site.ready_machine(&mut rack, 1).await;
    let before = site.get("/machines").await;
    let machine = |extra: Value| {
        let mut body = json!({ "name": "n002", "macs": ["52:54:00:00:00:02"] });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        body
    };
    let mut file_url = webhook();
    file_url.insert("power_on_uri".into(), "file:///etc/passwd".into());
    let long = "x".repeat(70_000);
    let user_data = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&long)
    };
    let cases: Vec<(&str, &str, Value, u16, &str)> = vec![
        ("POST", "/machines", machine(json!({ "macs": ["52:54:00:00:00:01"] })), 409, "duplicate"),
        ("POST", "/machines", machine(json!({ "name": "n001" })), 409, "duplicate"),
        ("POST", "/machines", machine(json!({ "macs": ["52:54:00:00:00:02", "52-54-00-00-00-02"] })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "macs": [] })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "macs": ["01:00:5e:00:00:01"] })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "macs": ["$(reboot)"] })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "name": "../../etc" })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "name": "a;reboot" })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "colour": "red" })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "architecture": "vax" })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "power": { "driver": "ipmi" } })), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "power": { "driver": "webhook" } })), 400, "invalid"),
        (
            "POST",
            "/machines",
            machine(json!({ "power": { "driver": "webhook", "parameters": file_url } })),
            400,
            "invalid",
        ),
        ("POST", "/machines", json!([1]), 400, "invalid"),
        ("POST", "/machines", machine(json!({ "name": "x".repeat(1 << 20) })), 413, "too-large"),
        ("POST", "/machines/n001/deploy", json!({}), 400, "invalid"),
        ("POST", "/machines/n001/deploy", json!({ "image": "no-such" }), 404, "image-not-found"),
        ("POST", "/machines/n001/deploy", json!({ "image": "blake3:00" }), 404, "image-not-found"),
        ("POST", "/machines/n001/deploy", json!({ "image": "../x" }), 404, "image-not-found"),
        ("POST", "/machines/n001/deploy", json!({ "image": "debian-12", "disk": "vdb" }), 409, "disk-too-small"),
        ("POST", "/machines/n001/deploy", json!({ "image": "debian-12", "disk": "vdz" }), 409, "no-disk"),
        ("POST", "/machines/n001/deploy", json!({ "image": "debian-12", "start": "magic" }), 400, "invalid"),
        ("POST", "/machines/n001/deploy", json!({ "image": "debian-12", "ready_seconds_max": 0 }), 400, "invalid"),
        (
            "POST",
            "/machines/n001/deploy",
            json!({ "image": "debian-12", "ssh_authorized_keys": ["a\nb"] }),
            400,
            "invalid",
        ),
        ("POST", "/machines/n001/deploy", json!({ "image": "debian-12", "user_data": "%" }), 400, "invalid"),
        ("POST", "/machines/n001/deploy", json!({ "image": "debian-12", "user_data": user_data }), 413, "too-large"),
        ("POST", "/machines/n001/release", json!({}), 409, "state"),
        ("POST", "/machines/n001/release", json!({ "erase": "magic" }), 400, "invalid"),
        ("POST", "/machines/n001/abort", json!({}), 409, "state"),
        ("POST", "/machines/n001/lock", json!({}), 409, "state"),
        ("POST", "/machines/n001/mark-fixed", json!({}), 409, "state"),
        ("POST", "/machines/n001/power", json!({ "action": "explode" }), 400, "invalid"),
        ("POST", "/machines/allocate", json!({ "cpu_count": 512 }), 409, "no-machine"),
        ("POST", "/machines/nobody/deploy", json!({ "image": "debian-12" }), 404, "machine-not-found"),
        ("PATCH", "/machines/n001", json!({ "name": "-bad-" }), 400, "invalid"),
        ("PATCH", "/machines/n001", json!({ "unknown": 1 }), 400, "invalid"),
        ("GET", "/machines?limit=0", Value::Null, 400, "invalid"),
        ("GET", "/machines?limit=1001", Value::Null, 400, "invalid"),
        ("GET", "/machines?state=Sleeping", Value::Null, 400, "invalid"),
        ("GET", "/machines?colour=red", Value::Null, 400, "invalid"),
        ("GET", "/machines/..%2f..%2fetc", Value::Null, 404, "machine-not-found"),
        ("GET", "/operations/nothing", Value::Null, 404, "operation-not-found"),
        ("GET", "/events?wait_seconds=31", Value::Null, 400, "invalid"),
        ("GET", "/no/such/path", Value::Null, 404, "no-route"),
        ("PUT", "/machines", json!({}), 405, "no-method"),
        ("DELETE", "/images/none", Value::Null, 404, "image-not-found"),
    ];
    for (method, path, body, status, code) in cases {
        let body = (!body.is_null()).then_some(body);
        let (got, problem) = site.send(method, path, body.clone()).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{method} {path}: {problem}");
        assert!(
            problem["message"].as_str().is_some_and(|message| message.len() < 600 && !message.contains('\n')),
            "{problem}"
        );
    }
    let (status, problem) = site
        .send_with("POST", "/machines", Some(br#"{"name":"a","name":"b","macs":["52:54:00:00:00:09"]}"#.to_vec()), &[])
        .await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid")), "a key twice");
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(site.send_with("POST", "/machines", Some(deep.into_bytes()), &[]).await.0, 400);
    assert_eq!(site.send_with("POST", "/machines", Some(vec![0xff, 0xfe]), &[]).await.0, 400);
    assert_eq!(site.get("/machines").await, before, "nothing has changed");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_is_answered_once() {
    let site = Site::start().await;
    let body = json!({ "macs": [mac(1).to_string()] }).to_string().into_bytes();
    let key = [("idempotency-key", "one")];
    let (status, first) = site.send_with("POST", "/machines", Some(body.clone()), &key).await;
    assert_eq!(status, 201);
    assert_eq!(site.send_with("POST", "/machines", Some(body.clone()), &key).await, (201, first));
    let other = json!({ "macs": [mac(2).to_string()] }).to_string().into_bytes();
    let (status, problem) = site.send_with("POST", "/machines", Some(other), &key).await;
    assert_eq!((status, &problem["code"]), (422, &json!("idempotency-key-reused")));
    assert_eq!(site.get("/machines").await["items"].as_array().map(Vec::len), Some(1));
    // A refused request may be tried again under its key.
    let bad = [("idempotency-key", "two")];
    assert_eq!(site.send_with("POST", "/machines", Some(body.clone()), &bad).await.0, 409);
    assert_eq!(site.send_with("POST", "/machines", Some(body), &bad).await.0, 409);

    // An operation is found again even after a restart.
    site.furnish().await;
    let id = site.get("/machines").await["items"][0]["id"].as_str().expect("id").to_string();
    let path = format!("/machines/{id}/commission");
    let key = [("idempotency-key", "three")];
    let (status, operation) = site.send_with("POST", &path, Some(b"{}".to_vec()), &key).await;
    assert_eq!(status, 202);
    let directory = site.stop().await;
    let site = Site::start_in(directory, bootstorm_api::role::EnlistThen::Wait).await;
    let (status, again) = site.send_with("POST", &path, Some(b"{}".to_vec()), &key).await;
    assert_eq!((status, &again["id"]), (202, &operation["id"]));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rack_that_breaks_the_rules_is_cut_off_and_others_are_not() {
    let site = Site::start().await;
    let mut good = Rack::join(&site, "good").await;
    let mut bad = Rack::join(&site, "bad").await;
    let observed = Observed::LeaseEnded { mac: mac(1), address: super::harness::address() };
    bad.observe(observed.clone()).await;
    // A gap in the middle of a link is never guessed over.
    let observation = Observation { sequence: 5, unix_micros: 1, observed: observed.clone() };
    bad.say(&ToControl::Observations { observations: vec![observation] }).await;
    let ended = async { while bad.step().await {} };
    tokio::time::timeout(super::harness::PATIENCE, ended).await.expect("cut off");
    good.observe(observed.clone()).await;

    // Coming back with the gap, it is said aloud and passed over: what is lost cannot be had again.
    let mut back = Rack::reconnect(&site, bad.id, bad.view.clone(), 4).await;
    back.observe(observed).await;
    let events = site.get("/events?limit=1000").await;
    assert!(
        events["items"]
            .as_array()
            .is_some_and(|events| events.iter().any(|event| event["code"] == "observations-lost"))
    );
    site.stop().await;
}
