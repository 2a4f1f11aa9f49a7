//! Machines on their way: enlisted, commissioned, deployed, ready, released.

use bootstorm_api::agent::Secrets;
use bootstorm_api::bmc::Action;
use bootstorm_api::link::ToControl;
use bootstorm_api::role::EnlistThen;
use bootstorm_snapshot::observation::{Failure, Progress, ReadyResult};
use bootstorm_snapshot::plan::{After, Task};
use bootstorm_snapshot::record::Answer;
use bootstorm_snapshot::{KeyHash, Observation, Observed, Stage, Subject};
use serde_json::{Value, json};

use super::harness::{Directory, Rack, Site, inventory, mac, manifest, webhook};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_string()
}

const BOOT: &[Stage] = &[Stage::Dhcp, Stage::Loader, Stage::Script, Stage::Kernel];

async fn deploy(site: &Site, machine: &str, body: Value) -> String {
    text(&site.post(&format!("/machines/{machine}/deploy"), body, 202).await["id"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_goes_all_the_way_and_back() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;

    // Enlisted: an unknown machine's agent has reported its inventory, and waits.
    let (enrolment, enlisted) = Rack::enlisted(1);
    rack.observe(Observed::UnknownMachine { enrolment, mac: mac(1), architecture: None }).await;
    rack.observe(enlisted).await;
    rack.until("the enrolment's machine", |rack| rack.view.enrolments.contains_key(&enrolment)).await;
    let id = rack.view.enrolments[&enrolment].machine;
    let name = id.to_string();
    assert_eq!(site.get(&format!("/machines/{name}")).await["state"], "New");
    assert_eq!(rack.view.boots[&id].answer, Answer::Wait);
    let (status, _) = site
        .send(
            "PATCH",
            &format!("/machines/{name}"),
            Some(json!({ "name": "n001", "power": { "driver": "webhook", "parameters": webhook() } })),
        )
        .await;
    assert_eq!(status, 200);

    // Commissioned.
    let operation = text(&site.post("/machines/n001/commission", json!({}), 202).await["id"]);
    let subject = rack.attempt(id, &operation).await;
    let Subject::Attempt { operation: in_snapshot, .. } = subject else { panic!("{subject:?}") };
    assert_eq!(in_snapshot.to_string(), operation);
    let plan = rack.view.plans[&in_snapshot].clone();
    assert_eq!((plan.task, plan.after, plan.hostname.as_deref()), (Task::Commission, After::PowerOff, Some("n001")));
    site.until_stage(&operation, "power").await;
    rack.stages(subject, BOOT).await;
    rack.observe(Observed::Redeemed { subject, key: KeyHash::of(b"key") }).await;
    rack.observe(Observed::Inventory { subject, inventory: Box::new(inventory(1)) }).await;
    rack.observe(Observed::Finished { subject }).await;
    site.until("/machines/n001", |machine| machine["state"] == "Ready" && machine["power_state"] == "off").await;
    assert_eq!(site.get(&format!("/operations/{operation}")).await["status"], "done");

    // Deployed: nothing is switched on before the rack serves the generation, has the image and holds the secrets.
    rack.serves = false;
    rack.holds = false;
    let body = json!({ "image": "debian-12", "user_data": "I2Nsb3VkLWNvbmZpZwo=", "ssh_authorized_keys": ["ssh-ed25519 AAAA me"] });
    let operation = deploy(&site, "n001", body).await;
    let subject = rack.attempt(id, &operation).await;
    let Subject::Attempt { operation: in_snapshot, attempt, .. } = subject else { panic!("{subject:?}") };
    let Task::Deploy(plan) = &rack.view.plans[&in_snapshot].task else { panic!("no deployment") };
    assert_eq!((plan.manifest, plan.secrets, plan.ssh_authorized_keys.len()), (manifest(b"image"), true, 1));
    let fixed = plan.network.interfaces[0].address.clone().expect("a fixed address");
    assert_eq!(fixed.network.to_string(), "10.7.0.0/24");
    assert_eq!(rack.view.reservations[&mac(1)].address, fixed.address);
    rack.missing = vec![manifest(b"image")];
    rack.tell_status().await;
    let before = site.bmc.actions();
    assert_eq!(before, [Action::Query, Action::Cycle, Action::Off]);
    rack.serves = true;
    rack.missing.clear();
    rack.tell_status().await;
    rack.until("the secrets", |rack| rack.secrets.contains_key(&in_snapshot)).await;
    let secrets: Secrets = serde_json::from_slice(&rack.secrets[&in_snapshot]).expect("secrets");
    assert_eq!(secrets.user_data.expect("user-data").0, b"#cloud-config\n");
    assert_eq!(site.get(&format!("/operations/{operation}")).await["stage"], "queued");
    assert_eq!(site.bmc.actions(), before, "the secrets are not held yet");
    rack.say(&ToControl::SecretsHeld { operation: in_snapshot }).await;
    site.until_stage(&operation, "power").await;
    rack.stages(subject, BOOT).await;
    rack.observe(Observed::Redeemed { subject, key: KeyHash::of(b"other") }).await;
    let progress = Progress { bytes: 1 << 30, bytes_total: 2 << 30 };
    let observed = Observed::Stage { subject, stage: Stage::Write, progress: Some(progress), detail: String::new() };
    rack.say(&ToControl::Observations { observations: vec![Observation { sequence: 0, unix_micros: 1, observed }] })
        .await;
    site.until(&format!("/operations/{operation}"), |operation| operation["bytes"] == 1 << 30).await;
    assert!(text(&site.get("/machines/n001/explain").await["summary"]).contains("50 %"));
    rack.stages(subject, &[Stage::Configure]).await;
    rack.observe(Observed::Written { subject }).await;
    let result = ReadyResult { warnings: vec!["one warning".into()], datasource: None };
    rack.observe(Observed::Ready { subject, result }).await;
    site.until_state("n001", "Deployed").await;
    let operation = site.get(&format!("/operations/{operation}")).await;
    assert_eq!((&operation["status"], &operation["warnings"]), (&json!("done"), &json!(["one warning"])));
    rack.until("local boot", |rack| rack.view.boots[&id].answer == Answer::Local { operation: Some(in_snapshot) })
        .await;
    rack.until("the secrets' end", |rack| rack.forgotten.contains(&in_snapshot)).await;
    let context = bootstorm_store::SecretContext::OperationUserData(in_snapshot);
    assert_eq!(site.control.store.secret(&context).await.expect("a look"), None, "secrets go with their operation");
    let explanation = site.get("/machines/n001/explain").await;
    let trace: Vec<String> =
        explanation["trace"].as_array().expect("spans").iter().map(|span| text(&span["stage"])).collect();
    for stage in ["published", "power", "dhcp", "loader", "script", "kernel", "agent", "configure", "written", "ready"]
    {
        assert!(trace.iter().any(|found| found == stage), "{stage} in {trace:?}");
    }
    assert!(explanation["trace"].as_array().expect("spans").iter().all(|span| span["attempt"] == attempt.to_string()));

    // Released.
    let operation = text(&site.post("/machines/n001/release", json!({ "erase": "quick" }), 202).await["id"]);
    let subject = rack.attempt(id, &operation).await;
    assert!(matches!(rack.view.plans.values().next().map(|plan| &plan.task), Some(Task::Erase { .. })));
    site.until_stage(&operation, "power").await;
    rack.observe(Observed::Finished { subject }).await;
    let machine = site.until_state("n001", "Ready").await;
    assert_eq!((&machine["owner"], &machine["image"]), (&Value::Null, &Value::Null));
    assert_eq!(site.get(&format!("/operations/{operation}")).await["status"], "done");
    rack.until("the address back", |rack| !rack.view.reservations.contains_key(&mac(1))).await;
    assert_eq!(rack.view.boots[&id].answer, Answer::Wait);
    assert_eq!(
        site.bmc.actions(),
        [Action::Query, Action::Cycle, Action::Off, Action::Cycle, Action::Cycle, Action::Off]
    );
    let events = site.get("/events?limit=1000").await;
    let codes: Vec<String> =
        events["items"].as_array().expect("events").iter().map(|event| text(&event["code"])).collect();
    for code in [
        "rack-joined",
        "machine-enlisted",
        "machine-commissioned",
        "machine-deploying",
        "machine-deployed",
        "machine-erased",
        "machine-released",
    ] {
        assert!(codes.iter().any(|found| found == code), "{code} in {codes:?}");
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enlisted_machine_is_commissioned_in_the_same_boot() {
    let site = Site::start_in(Directory::new(), EnlistThen::Commission).await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let (enrolment, enlisted) = Rack::enlisted(1);
    rack.observe(enlisted).await;
    rack.until("the enrolment's machine", |rack| rack.view.enrolments.contains_key(&enrolment)).await;
    let id = rack.view.enrolments[&enrolment].machine;
    let subject = rack.attempt(id, "").await;
    let machine = site.get(&format!("/machines/{id}")).await;
    site.until_stage(&text(&machine["operation"]), "published").await;
    rack.observe(Observed::Inventory { subject, inventory: Box::new(inventory(1)) }).await;
    rack.observe(Observed::Finished { subject }).await;
    site.until_state(&id.to_string(), "Ready").await;
    assert!(site.bmc.actions().is_empty(), "nothing is switched: its agent was waiting");

    // The rack has forgotten it, and it boots from another interface: no second record.
    let mut found = inventory(2);
    found.dmi = inventory(1).dmi;
    let (again, _) = Rack::enlisted(9);
    rack.observe(Observed::Enlisted { enrolment: again, mac: mac(2), inventory: Box::new(found) }).await;
    rack.until("the second enrolment", |rack| rack.view.enrolments.contains_key(&again)).await;
    assert_eq!(rack.view.enrolments[&again].machine, id);
    let machine = site.get(&format!("/machines/{id}")).await;
    assert_eq!(machine["interfaces"].as_array().map(Vec::len), Some(2));
    assert_eq!(machine["state"], "Ready");
    assert_eq!(site.get("/machines").await["items"].as_array().map(Vec::len), Some(1));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_is_started_anew_in_the_middle_of_a_deployment() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let id = site.ready_machine(&mut rack, 1).await;
    let body = json!({ "image": "debian-12", "user_data": "eA==" });
    let operation = deploy(&site, "n001", body).await;
    let subject = rack.attempt(id, &operation).await;
    rack.during(site.until_stage(&operation, "power")).await;
    rack.stages(subject, BOOT).await;
    let (token, address) = (site.token.clone(), rack.view.reservations[&mac(1)].address);
    let directory = site.stop().await;

    // Meanwhile the machine goes on; the rack spools what it sees.
    let (id_of_rack, view, sequence) = (rack.id, rack.view.clone(), rack.sequence);
    let site = Site::start_in(directory, EnlistThen::Wait).await;
    assert_eq!(site.token, token, "a clean restart keeps everything");
    let mut rack = Rack::reconnect(&site, id_of_rack, view, sequence).await;
    let Subject::Attempt { operation: in_snapshot, .. } = subject else { panic!("{subject:?}") };
    rack.until("the secrets again", |rack| rack.secrets.contains_key(&in_snapshot)).await;
    assert_eq!(rack.view.reservations[&mac(1)].address, address);
    rack.observe(Observed::Written { subject }).await;
    // What was not acknowledged is sent again; it is applied once.
    rack.sequence -= 1;
    rack.observe(Observed::Written { subject }).await;
    rack.observe(Observed::Ready { subject, result: ReadyResult::default() }).await;
    site.until_state("n001", "Deployed").await;
    assert_eq!(site.get(&format!("/operations/{operation}")).await["status"], "done");
    assert!(site.bmc.actions().is_empty(), "nothing is switched a second time");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rack_far_behind_gets_a_base_and_a_near_one_a_delta() {
    let site = Site::start().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let create = |n: u8| json!({ "name": format!("m{n}"), "macs": [mac(n).to_string()] });
    site.post("/machines", create(1), 201).await;
    rack.until("the machine", |rack| rack.view.boots.len() == 1).await;
    site.post("/machines", create(2), 201).await;
    rack.until("the delta", |rack| rack.view.boots.len() == 2).await;
    let (id, old) = (rack.id, rack.view.clone());
    drop(rack);
    for n in 3..40 {
        site.post("/machines", create(n), 201).await;
    }
    let mut rack = Rack::reconnect(&site, id, old, 0).await;
    rack.until("everything", |rack| rack.view.boots.len() == 39).await;
    let generation = rack.generation();
    site.until("/racks", |racks| racks["items"][0]["generation"] == generation.0).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_name_stage_code_evidence_and_what_to_try() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let id = site.ready_machine(&mut rack, 1).await;

    // The agent says no.
    let operation = deploy(&site, "n001", json!({ "image": "debian-12" })).await;
    let subject = rack.attempt(id, &operation).await;
    rack.during(site.until_stage(&operation, "power")).await;
    let failure = Failure { stage: Stage::Write, code: "disk-too-small".into(), evidence: "vda has 1 GiB".into() };
    rack.observe(Observed::Failed { subject, failure }).await;
    let machine = site.until_state("n001", "Failed deployment").await;
    assert_eq!(machine["operation"], Value::Null);
    let failed = site.get(&format!("/operations/{operation}")).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["failure"]["code"], "disk-too-small");
    assert_eq!(failed["failure"]["evidence"], "vda has 1 GiB");
    assert!(text(&failed["failure"]["suggestion"]).contains("disk"));
    // What comes later about it changes nothing.
    rack.observe(Observed::Ready { subject, result: ReadyResult::default() }).await;
    assert_eq!(site.get("/machines/n001").await["state"], "Failed deployment");
    rack.during(site.post("/machines/n001/release", json!({}), 202)).await;
    rack.during(site.until_state("n001", "Ready")).await;

    // The BMC says no, for good.
    let refused = bootstorm_api::bmc::PowerFailure {
        code: "webhook-status-404".into(),
        detail: "status 404".into(),
        retryable: false,
    };
    *site.bmc.failure.lock().expect("lock") = Some(refused);
    let operation = deploy(&site, "n001", json!({ "image": "debian-12" })).await;
    rack.during(site.until_state("n001", "Failed deployment")).await;
    let failed = site.get(&format!("/operations/{operation}")).await;
    assert_eq!((&failed["failure"]["code"], &failed["failure"]["stage"]), (&json!("power-failed"), &json!("power")));
    *site.bmc.failure.lock().expect("lock") = None;
    rack.during(site.post("/machines/n001/release", json!({}), 202)).await;
    rack.during(site.until_state("n001", "Ready")).await;

    // Nothing happens at all.
    let operation = deploy(&site, "n001", json!({ "image": "debian-12" })).await;
    rack.during(site.until_stage(&operation, "power")).await;
    let late = crate::control::now().plus_seconds(3600);
    crate::sweep::sweep(&site.control, late).await.expect("swept");
    let failed = site.get(&format!("/operations/{operation}")).await;
    assert_eq!((&failed["status"], &failed["failure"]["code"]), (&json!("failed"), &json!("no-dhcp")));
    assert_eq!(site.get("/machines/n001").await["state"], "Failed deployment");
    let summary = text(&site.get("/machines/n001/explain").await["summary"]);
    assert!(summary.contains("no-dhcp") && summary.contains("Try:"), "{summary}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_operation_leaves_nothing_behind() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let id = site.ready_machine(&mut rack, 1).await;
    let operation = deploy(&site, "n001", json!({ "image": "debian-12", "user_data": "eA==" })).await;
    rack.during(site.until_stage(&operation, "power")).await;
    rack.during(site.post(&format!("/operations/{operation}/cancel"), json!({}), 200)).await;
    assert_eq!(site.get("/machines/n001").await["state"], "Allocated");
    rack.until("no agent", |rack| rack.view.boots[&id].answer == Answer::Wait && rack.view.plans.is_empty()).await;
    rack.until("no secrets", |rack| rack.secrets.is_empty() && !rack.forgotten.is_empty()).await;
    let (status, problem) = site.send("POST", &format!("/operations/{operation}/cancel"), Some(json!({}))).await;
    assert_eq!((status, &problem["code"]), (409, &json!("operation-over")));
    site.until("/machines/n001", |machine| machine["power_state"] == "off").await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_redeemed_twice_holds_the_machine() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let id = site.ready_machine(&mut rack, 1).await;
    let operation = deploy(&site, "n001", json!({ "image": "debian-12" })).await;
    let subject = rack.attempt(id, &operation).await;
    rack.during(site.until_stage(&operation, "power")).await;
    rack.observe(Observed::Alarm {
        code: "claim-redeemed-twice".into(),
        subject: Some(subject),
        detail: "from 10.7.0.66".into(),
    })
    .await;
    let machine = site.get("/machines/n001").await;
    assert!(text(&machine["held"]).contains("10.7.0.66"));
    rack.until("no agent", |rack| rack.view.boots[&id].answer == Answer::Wait).await;
    rack.during(site.post("/machines/n001/abort", json!({}), 200)).await;
    let (status, problem) = site.send("POST", "/machines/n001/deploy", Some(json!({ "image": "debian-12" }))).await;
    assert_eq!((status, &problem["code"]), (409, &json!("machine-held")));
    let (status, _) = site.send("PATCH", "/machines/n001", Some(json!({ "held": false }))).await;
    assert_eq!(status, 200);
    assert_eq!(site.get("/machines/n001").await["held"], Value::Null);
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_a_bmc_is_switched_by_a_person() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    site.post("/machines", json!({ "name": "hand", "macs": [mac(7).to_string()] }), 201).await;
    let operation = rack.during(site.post("/machines/hand/commission", json!({}), 202)).await;
    let said = |events: &Value| {
        events["items"].as_array().is_some_and(|events| events.iter().any(|event| event["code"] == "power-by-hand"))
    };
    rack.during(site.until("/events?machine=hand", said)).await;
    let operation = site.get(&format!("/operations/{}", text(&operation["id"]))).await;
    assert_eq!((&operation["status"], &operation["stage"]), (&json!("running"), &json!("published")));
    site.stop().await;
}
