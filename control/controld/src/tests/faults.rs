//! Every effect fails once before it is performed and once after, so that each is performed twice: the way is the same.

use std::collections::HashSet;

use bootstorm_api::bmc::{Action, PowerFailure};
use bootstorm_model::Effect;
use bootstorm_snapshot::observation::ReadyResult;
use bootstorm_snapshot::{Observed, Subject};
use serde_json::json;

use super::harness::{Rack, Site};
use crate::effects::When;

/// One effect at a time strikes: before, then after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflow_with_a_fault_at_every_effect_and_every_effect_twice() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let struck = std::sync::Arc::new(std::sync::Mutex::new(Vec::<(&'static str, When)>::new()));
    let mut seen = HashSet::new();
    let log = struck.clone();
    *site.control.faults.hook.lock().expect("lock") = Some(Box::new(move |effect, when| {
        let strikes = seen.insert((effect.id, when));
        if strikes {
            log.lock().expect("lock").push((effect.effect.word(), when));
        }
        strikes
    }));
    let id = site.ready_machine(&mut rack, 1).await;
    let operation = site.post("/machines/n001/deploy", json!({ "image": "debian-12", "user_data": "eA==" }), 202).await;
    let operation = operation["id"].as_str().expect("id").to_string();
    let subject = rack.attempt(id, &operation).await;
    rack.during(site.until_stage(&operation, "power")).await;
    rack.during(site.until("/machines/n001", |machine| machine["power_state"] == "on")).await;
    rack.observe(Observed::Written { subject }).await;
    rack.observe(Observed::Ready { subject, result: ReadyResult::default() }).await;
    rack.during(site.until_state("n001", "Deployed")).await;
    let Subject::Attempt { operation: in_snapshot, .. } = subject else { panic!("{subject:?}") };
    rack.until("the secrets' end, twice", |rack| rack.forgotten.iter().filter(|id| **id == in_snapshot).count() >= 2)
        .await;
    rack.during(site.post("/machines/n001/release", json!({}), 202)).await;
    rack.during(site.until_state("n001", "Ready")).await;
    let actions = site.bmc.actions();
    assert!(actions.iter().filter(|action| **action == Action::Cycle).count() >= 3, "{actions:?}");
    let struck = struck.lock().expect("lock").clone();
    for word in ["publish_snapshot", "push_secrets", "revoke_attempt", "power_off", "power_cycle"] {
        for when in [When::Before, When::After] {
            assert!(struck.contains(&(word, when)), "{word} {when:?} in {struck:?}");
        }
    }
    // Every effect that the model knows was among them, but power-on alone, which no transition of this way asks for.
    let known = [Effect::PublishSnapshot, Effect::PushSecrets, Effect::RevokeAttempt, Effect::PowerOff];
    assert!(known.iter().all(|effect| struck.iter().any(|(word, _)| *word == effect.word())));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_passing_failure_of_a_bmc_is_tried_again() {
    let site = Site::start().await;
    site.furnish().await;
    let mut rack = Rack::join(&site, "rack-1").await;
    let id = site.ready_machine(&mut rack, 1).await;
    let passing = PowerFailure { code: "unreachable".into(), detail: "no route".into(), retryable: true };
    *site.bmc.failure.lock().expect("lock") = Some(passing);
    let before = site.bmc.actions().len();
    let operation = site.post("/machines/n001/deploy", json!({ "image": "debian-12" }), 202).await;
    rack.attempt(id, operation["id"].as_str().expect("id")).await;
    let bmc = site.bmc.clone();
    rack.during(site.until("/machines/n001", |_| bmc.actions().len() > before)).await;
    *site.bmc.failure.lock().expect("lock") = None;
    rack.during(site.until("/machines/n001", |machine| machine["power_state"] == "on")).await;
    let operation = site.get(&format!("/operations/{}", operation["id"].as_str().expect("id"))).await;
    assert_eq!((&operation["status"], &operation["stage"]), (&json!("running"), &json!("power")));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_rack_nothing_is_switched_on() {
    let site = Site::start().await;
    site.furnish().await;
    let machine = json!({
        "name": "n001", "macs": ["52:54:00:00:00:01"],
        "power": { "driver": "webhook", "parameters": super::harness::webhook() },
    });
    site.post("/machines", machine, 201).await;
    let operation = site.post("/machines/n001/commission", json!({}), 202).await;
    let operation = operation["id"].as_str().expect("id").to_string();
    assert_eq!(site.get(&format!("/operations/{operation}")).await["stage"], "queued");
    let late = crate::control::now().plus_seconds(3600);
    crate::sweep::sweep(&site.control, late).await.expect("swept");
    let failed = site.get(&format!("/operations/{operation}")).await;
    assert_eq!(failed["failure"]["code"], "not-published");
    assert!(site.bmc.actions().is_empty());
    site.stop().await;
}
