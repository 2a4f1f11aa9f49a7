//! Claims, attempts, plans and reports, rule by rule (`design.md` §5, threat model T3).

mod support;

use std::time::Duration;

use bootstorm_engine::script::Format;
use bootstorm_engine::{Answer, Output, Refusal, Report, Request, ScriptRequest, Time};
use bootstorm_proto::http::server::Method;
use bootstorm_snapshot::observation::{Failure, Progress, ReadyResult};
use bootstorm_snapshot::plan::After;
use bootstorm_snapshot::record::{Answer as Boot, Record, Site, Unknown};
use bootstorm_snapshot::{ClaimHash, CredentialHash, KeyHash, Mac, Observed, Stage, Subject, Task};
use support::*;

fn key(n: u64) -> KeyHash {
    KeyHash::of(&n.to_le_bytes())
}

impl Rack {
    fn script_as(&mut self, now: Time, mac: Mac, method: Method) -> Option<String> {
        let entropy = self.entropy();
        let request = ScriptRequest { ticket: 5, mac, rack: RACK, format: Format::Ipxe, method };
        self.engine.handle_script(now, entropy, request);
        let outputs = self.drain();
        let [Output::Script { ticket: 5, text }] = outputs.as_slice() else { panic!("{outputs:?}") };
        text.clone()
    }

    fn script(&mut self, now: Time, mac: Mac) -> String {
        self.script_as(now, mac, Method::Get).expect("a script")
    }

    fn ask(&mut self, now: Time, request: Request) -> Option<Answer> {
        self.engine.handle_request(now, 9, request);
        self.answer()
    }

    fn answer(&mut self) -> Option<Answer> {
        self.drain().into_iter().find_map(|output| match output {
            Output::Answer { number: 9, answer } => Some(answer),
            _ => None,
        })
    }

    fn redeem(&mut self, now: Time, claim: ClaimHash, n: u64) -> Answer {
        self.ask(now, Request::Redeem { claim, key: key(n) }).expect("answered at once")
    }

    fn report(&mut self, now: Time, n: u64, sequence: u64, report: Report) -> Answer {
        self.ask(now, Request::Report { key: key(n), sequence, report }).expect("answered at once")
    }

    fn plan(&mut self, now: Time, n: u64, known: Option<Subject>, seconds: u64) -> Option<Answer> {
        self.ask(now, Request::Plan { key: key(n), known, wait: Duration::from_secs(seconds) })
    }

    fn observed(&self) -> Vec<Observed> {
        self.engine.observations(0, 10_000).into_iter().map(|observation| observation.observed).collect()
    }

    fn alarms(&self) -> Vec<String> {
        let code = |observed| if let Observed::Alarm { code, .. } = observed { Some(code) } else { None };
        self.observed().into_iter().filter_map(code).collect()
    }

    fn stages(&self) -> Vec<Stage> {
        let stage = |observed| if let Observed::Stage { stage, .. } = observed { Some(stage) } else { None };
        self.observed().into_iter().filter_map(stage).collect()
    }
}

fn claim(script: &str) -> ClaimHash {
    try_claim(script).unwrap_or_else(|| panic!("no claim in {script}"))
}

fn try_claim(script: &str) -> Option<ClaimHash> {
    let digits = script.split("bootstorm.claim=").nth(1)?.get(..32)?;
    let octets: Vec<u8> =
        (0..16).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).expect("hexadecimal")).collect();
    Some(ClaimHash::of(&octets))
}

fn refused(answer: Answer) -> Refusal {
    match answer {
        Answer::Refused { code, .. } => code,
        other => panic!("{other:?} is no refusal"),
    }
}

fn granted(answer: Answer) -> Subject {
    match answer {
        Answer::Granted { subject, .. } => subject,
        other => panic!("{other:?} is no grant"),
    }
}

/// A rack with machine 1 that is to be deployed as operation 10.
fn deploying() -> Rack {
    let mut view = site();
    put_work(&mut view, 1, 10, deploy(), After::StartSystem);
    Rack::new(view)
}

fn first_attempt(op: u64) -> Subject {
    Subject::Attempt { machine: machine(1), operation: operation(op), attempt: attempt(op) }
}

fn attempt_of(subject: Subject) -> bootstorm_snapshot::AttemptId {
    match subject {
        Subject::Attempt { attempt, .. } => attempt,
        Subject::Enrolment { .. } => panic!("an enrolment"),
    }
}

const CREDENTIAL: &[u8] = b"credential";

fn written() -> Report {
    Report::Written { credential: CredentialHash::of(CREDENTIAL) }
}

#[test]
fn t3_the_first_get_mints_a_claim_and_a_head_does_not() {
    let mut rack = deploying();
    let head = rack.script_as(at(0), mac(1), Method::Head).expect("a script");
    assert!(head.contains(&"0".repeat(32)), "{head}");
    assert!(rack.journal.is_empty(), "a HEAD changes nothing");
    let script = rack.script(at(10), mac(1));
    assert_eq!(script.len(), head.len(), "the length of a HEAD is that of the GET");
    assert_eq!(try_claim(&rack.script(at(20), mac(1))), Some(claim(&script)), "the same claim until it is redeemed");
}

#[test]
fn t3_a_claim_leaves_only_when_its_hash_is_durable_and_is_never_written() {
    let mut rack = deploying();
    rack.prompt = false;
    let entropy = rack.entropy();
    let ask = |ticket| ScriptRequest { ticket, mac: mac(1), rack: RACK, format: Format::Ipxe, method: Method::Get };
    rack.engine.handle_script(at(0), entropy, ask(1));
    assert_eq!(rack.drain(), []);
    rack.engine.handle_script(at(1), entropy, ask(2));
    assert_eq!(rack.drain(), [], "the repetition rests on the same record");
    rack.commit();
    let outputs = rack.drain();
    assert_eq!(outputs.len(), 2);
    let hex: String = entropy.claim.iter().map(|octet| format!("{octet:02x}")).collect();
    assert!(matches!(&outputs[0], Output::Script { text: Some(text), .. } if text.contains(&hex)));
    for (_, payload) in &rack.journal {
        assert!(!String::from_utf8_lossy(payload).contains(&hex));
        assert!(!payload.windows(16).any(|window| window == entropy.claim));
    }
}

#[test]
fn t3_a_claim_is_redeemed_once_and_the_same_key_gets_the_same_answer() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    let first = rack.redeem(at(1000), claim, 1);
    assert_eq!(granted(first.clone()), first_attempt(10));
    assert_eq!(rack.redeem(at(2000), claim, 1), first);
    rack.restart(at(3000));
    assert_eq!(rack.redeem(at(4000), claim, 1), first, "after a restart too");
    assert_eq!(refused(rack.redeem(at(5000), claim, 2)), Refusal::ClaimTaken);
    assert_eq!(rack.alarms(), ["claim-redeemed-twice"]);
    assert_eq!(refused(rack.redeem(at(5000), ClaimHash::of(b"guess"), 3)), Refusal::UnknownClaim);
    let redeemed = rack.observed().iter().filter(|one| matches!(one, Observed::Redeemed { .. })).count();
    assert_eq!(redeemed, 1);
}

#[test]
fn t3_a_claim_dies_after_half_an_hour_and_with_its_operation() {
    let mut rack = deploying();
    let old = claim(&rack.script(at(0), mac(1)));
    let late = 30 * 60 * 1000;
    assert_eq!(refused(rack.redeem(at(late), old, 1)), Refusal::UnknownClaim);
    let new = claim(&rack.script(at(late), mac(1)));
    assert_ne!(new, old);
    rack.publish(at(late + 1), |view| put_machine(view, 1, Boot::Wait));
    assert_eq!(refused(rack.redeem(at(late + 2), new, 1)), Refusal::UnknownClaim);
}

#[test]
fn t3_a_restart_replaces_a_claim_that_was_not_redeemed() {
    let mut rack = deploying();
    let old = claim(&rack.script(at(0), mac(1)));
    rack.restart(at(1000));
    let new = claim(&rack.script(at(2000), mac(1)));
    assert_ne!(new, old);
    assert_eq!(refused(rack.redeem(at(3000), old, 1)), Refusal::UnknownClaim);
    assert_eq!(granted(rack.redeem(at(3000), new, 1)), first_attempt(10));
}

#[test]
fn t3_no_claim_while_an_agent_speaks() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(1000), claim, 1);
    rack.report(at(20_000), 1, 0, Report::Alive);
    let script = rack.script(at(49_000), mac(1));
    assert!(script.contains("sleep 5") && try_claim(&script).is_none(), "{script}");
    assert_eq!(rack.alarms(), ["script-while-agent-speaks"]);
    rack.script(at(49_500), mac(1));
    assert_eq!(rack.alarms().len(), 1, "one alarm, however often it is asked");
    assert_eq!(rack.engine.count("alarms", "script-while-agent-speaks"), 2);
    assert!(try_claim(&rack.script(at(50_000), mac(1))).is_some(), "30 s of silence");
}

#[test]
fn t3_silence_makes_the_next_attempt_and_three_are_all() {
    let mut rack = deploying();
    let mut attempts = vec![];
    for n in 0..3u64 {
        let now = n * 100_000;
        let claim = claim(&rack.script(at(now), mac(1)));
        attempts.push(attempt_of(granted(rack.redeem(at(now + 1000), claim, n))));
    }
    assert_eq!(attempts[0], attempt(10), "the first one is control's");
    attempts.sort_unstable();
    attempts.dedup();
    assert_eq!(attempts.len(), 3);
    assert_eq!(refused(rack.report(at(202_000), 0, 1, Report::Finished)), Refusal::UnknownKey, "its attempt is over");
    let script = rack.script(at(300_000), mac(1));
    assert!(script.contains("used up") && try_claim(&script).is_none(), "{script}");
    let failed = rack.observed().into_iter().find_map(|one| match one {
        Observed::Failed { failure, .. } => Some(failure.code),
        _ => None,
    });
    assert_eq!(failed.as_deref(), Some("attempts-used-up"));
    rack.publish(at(300_001), |view| put_work(view, 1, 11, deploy(), After::StartSystem));
    let claim = claim(&rack.script(at(300_002), mac(1)));
    assert_eq!(granted(rack.redeem(at(300_003), claim, 7)), first_attempt(11), "a new operation has new attempts");
}

#[test]
fn t3_a_claim_is_not_redeemed_over_a_speaking_agent() {
    let mut rack = deploying();
    let first = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(0), first, 1);
    let second = claim(&rack.script(at(30_000), mac(1)));
    rack.report(at(31_000), 1, 0, Report::Alive);
    assert_eq!(refused(rack.redeem(at(32_000), second, 2)), Refusal::Busy);
    assert_ne!(granted(rack.redeem(at(61_000), second, 2)), first_attempt(10));
}

#[test]
fn a_restart_of_the_rack_takes_no_agent_for_gone() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(1000), claim, 1);
    rack.restart(at(100_000));
    assert_eq!(try_claim(&rack.script(at(101_000), mac(1))), None);
    assert!(try_claim(&rack.script(at(130_000), mac(1))).is_some());
}

#[test]
fn local_boot_wins_until_the_snapshot_names_another_operation_or_none() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(1000), claim, 1);
    rack.prompt = false;
    assert_eq!(rack.ask(at(2000), Request::Report { key: key(1), sequence: 1, report: written() }), None);
    rack.commit();
    assert_eq!(rack.answer(), Some(Answer::Done), "only when local boot is durable");
    rack.prompt = true;
    let local = |rack: &mut Rack, now| rack.script(at(now), mac(1)).contains("sanboot");
    assert!(local(&mut rack, 3000), "at once, although the agent spoke just now");
    rack.restart(at(4000));
    assert!(local(&mut rack, 5000));
    rack.publish(at(6000), |view| put_machine(view, 1, Boot::Local { operation: Some(operation(10)) }));
    assert!(local(&mut rack, 7000));
    rack.publish(at(8000), |view| put_machine(view, 1, Boot::Wait));
    assert!(rack.script(at(8000), mac(1)).contains("nothing to do"));
    rack.publish(at(9000), |view| put_work(view, 1, 11, deploy(), After::StartSystem));
    assert!(try_claim(&rack.script(at(10_000), mac(1))).is_some());
}

#[test]
fn finished_and_failed_work_is_not_begun_again() {
    for report in [Report::Finished, Report::Failed { failure: failure() }] {
        let mut view = site();
        put_work(&mut view, 1, 10, erase(), After::PowerOff);
        let mut rack = Rack::new(view);
        let claim = claim(&rack.script(at(0), mac(1)));
        rack.redeem(at(0), claim, 1);
        assert_eq!(rack.report(at(1000), 1, 1, report), Answer::Done);
        rack.restart(at(2000));
        let script = rack.script(at(100_000), mac(1));
        assert!(script.contains("sleep 10") && try_claim(&script).is_none(), "{script}");
        assert_eq!(refused(rack.report(at(100_001), 1, 2, Report::Finished)), Refusal::OutOfOrder);
    }
}

fn failure() -> Failure {
    Failure { stage: Stage::Write, code: "disk-too-small".into(), evidence: "x".repeat(10_000) }
}

#[test]
fn reports_are_numbered_and_applied_once() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(0), claim, 1);
    let stage = |detail: &str| Report::Stage { stage: Stage::Write, progress: None, detail: detail.into() };
    assert_eq!(refused(rack.report(at(1), 1, 2, stage("early"))), Refusal::OutOfOrder);
    assert_eq!(refused(rack.report(at(1), 1, 0, stage("unnumbered"))), Refusal::OutOfOrder);
    assert_eq!(rack.report(at(1), 1, 1, stage("first")), Answer::Done);
    rack.restart(at(2));
    assert_eq!(rack.report(at(3), 1, 1, stage("again")), Answer::Done);
    assert_eq!(rack.report(at(4), 1, 2, stage(&"\u{e4}".repeat(4000))), Answer::Done);
    let details: Vec<String> = rack
        .observed()
        .into_iter()
        .filter_map(|one| match one {
            Observed::Stage { stage: Stage::Write, detail, .. } => Some(detail),
            _ => None,
        })
        .collect();
    assert_eq!(details.len(), 2);
    assert_eq!((details[0].as_str(), details[1].len()), ("first", 4096), "long text is cut");
    let progress = Some(Progress { bytes: 1, bytes_total: 2 });
    let report = Report::Stage { stage: Stage::Write, progress, detail: String::new() };
    rack.engine.handle_request(at(5), 9, Request::Report { key: key(1), sequence: 0, report });
    let outputs = rack.drain();
    assert!(
        matches!(&outputs[..], [Output::Observe(one), Output::Answer { answer: Answer::Done, .. }] if one.sequence == 0)
    );
    assert_eq!(refused(rack.report(at(6), 77, 1, Report::Finished)), Refusal::UnknownKey);
}

#[test]
fn t1_reports_of_an_operation_that_is_no_more_are_refused() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(0), claim, 1);
    rack.publish(at(1), |view| put_machine(view, 1, Boot::Wait));
    assert_eq!(refused(rack.report(at(2), 1, 1, written())), Refusal::UnknownKey);
    assert_eq!(rack.report(at(2), 1, 0, Report::Alive), Answer::Done, "it may stay and ask for its plan");
    rack.publish(at(3), |view| put_work(view, 1, 11, erase(), After::Wait));
    assert_eq!(granted(rack.plan(at(4), 1, Some(first_attempt(10)), 20).expect("at once")), first_attempt(11));
    assert_eq!(refused(rack.report(at(5), 1, 1, written())), Refusal::OutOfOrder, "an erase plan writes no image");
    assert_eq!(rack.report(at(5), 1, 1, Report::Finished), Answer::Done, "its numbers start again");
}

#[test]
fn a_plan_request_is_held_until_the_plan_changes_or_its_time_is_over() {
    let mut view = site();
    put_work(&mut view, 1, 10, Task::Commission, After::Wait);
    let mut rack = Rack::new(view);
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(0), claim, 1);
    assert_eq!(granted(rack.plan(at(1), 1, None, 20).expect("at once")), first_attempt(10));
    assert_eq!(rack.plan(at(1000), 1, Some(first_attempt(10)), 5), None);
    assert_eq!(rack.engine.next_timeout(at(1000)), Some(Duration::from_millis(6000)));
    rack.publish(at(2000), |view| put_machine(view, 2, Boot::Wait));
    assert_eq!(rack.answer(), None, "somebody else's change");
    rack.engine.handle_timeout(at(6000));
    assert_eq!(rack.answer(), Some(Answer::Unchanged));
    assert_eq!(rack.report(at(7000), 1, 1, Report::Finished), Answer::Done);
    assert_eq!(rack.plan(at(8000), 1, Some(first_attempt(10)), 1000), None);
    assert_eq!(rack.engine.next_timeout(at(8000)), Some(Duration::from_secs(28)), "cut to the limit");
    let outputs = rack.publish(at(9000), |view| put_work(view, 1, 11, deploy(), After::StartSystem));
    assert!(
        matches!(&outputs[..], [Output::Answer { number: 9, answer: Answer::Granted { subject, plan } }]
            if *subject == first_attempt(11) && plan.operation == Some(operation(11))),
        "{outputs:?}"
    );
    assert_eq!(refused(rack.plan(at(9500), 5, None, 20).expect("at once")), Refusal::UnknownKey);
}

#[test]
fn an_unknown_machine_enlists_and_goes_on_as_the_machine_that_control_makes_of_it() {
    let mut rack = Rack::new(site());
    let claim = claim(&rack.script(at(0), mac(9)));
    let Answer::Granted { subject, plan } = rack.redeem(at(1000), claim, 1) else { panic!("not granted") };
    assert_eq!(plan.task, Task::Enlist);
    let Subject::Enrolment { enrolment, mac: boot_mac } = subject else { panic!("{subject:?}") };
    assert_eq!(boot_mac, mac(9));
    assert!(rack.observed().contains(&Observed::UnknownMachine { enrolment, mac: mac(9), architecture: None }));
    rack.restart(at(2000));
    assert_eq!(rack.report(at(3000), 1, 1, Report::Finished), Answer::Done);
    assert_eq!(rack.plan(at(4000), 1, Some(subject), 20), None);
    let outputs = rack.publish(at(5000), |view| {
        put_work(view, 9, 10, Task::Commission, After::Wait);
        put_enrolment(view, enrolment, 9);
    });
    let next = Subject::Attempt { machine: machine(9), operation: operation(10), attempt: attempt(10) };
    assert!(
        matches!(&outputs[..], [Output::Answer { answer: Answer::Granted { subject, .. }, .. }] if *subject == next),
        "{outputs:?}"
    );
    assert!(rack.observed().contains(&Observed::Redeemed { subject: next, key: key(1) }));
    rack.restart(at(6000));
    assert_eq!(rack.report(at(7000), 1, 1, Report::Finished), Answer::Done);
    assert_eq!(rack.engine.stats().enrolments, 0);
}

#[test]
fn an_enrolled_agent_takes_no_machine_that_has_an_agent_of_its_own() {
    let mut rack = Rack::new(site());
    let enrolled = claim(&rack.script(at(0), mac(9)));
    let subject = granted(rack.redeem(at(0), enrolled, 1));
    let Subject::Enrolment { enrolment, .. } = subject else { panic!("{subject:?}") };
    rack.publish(at(1), |view| put_work(view, 9, 10, Task::Commission, After::Wait));
    let own = claim(&rack.script(at(2), mac(9)));
    rack.redeem(at(3), own, 2);
    rack.publish(at(4), |view| put_enrolment(view, enrolment, 9));
    assert_eq!(rack.plan(at(5), 1, Some(subject), 0), Some(Answer::Unchanged));
}

#[test]
fn unknown_machines_can_be_ignored() {
    let mut view = site();
    if let Some(site) = view.site.clone() {
        view.put(Record::Site(Site { unknown: Unknown::Ignore, ..site }));
    }
    let mut rack = Rack::new(view);
    assert_eq!(rack.script_as(at(0), mac(9), Method::Get), None);
}

#[test]
fn ready_is_said_once_by_the_credential_that_was_left() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(0), claim, 1);
    rack.report(at(1), 1, 1, written());
    let ready = |credential: &[u8]| Request::Ready {
        credential: CredentialHash::of(credential),
        result: ReadyResult { warnings: vec!["locale".into()], datasource: None },
    };
    assert_eq!(refused(rack.ask(at(2), ready(b"guess")).expect("at once")), Refusal::UnknownCredential);
    rack.restart(at(3));
    assert_eq!(rack.ask(at(4), ready(CREDENTIAL)), Some(Answer::Done));
    rack.restart(at(5));
    assert_eq!(rack.ask(at(6), ready(CREDENTIAL)), Some(Answer::Done), "its answer was lost");
    let count = rack.observed().iter().filter(|one| matches!(one, Observed::Ready { .. })).count();
    assert_eq!(count, 1);
    rack.publish(at(7), |view| put_work(view, 1, 11, deploy(), After::StartSystem));
    rack.script(at(8), mac(1));
    assert_eq!(refused(rack.ask(at(9), ready(CREDENTIAL)).expect("at once")), Refusal::UnknownCredential);
}

#[test]
fn a_trace_has_each_stage_once() {
    let mut rack = deploying();
    for now in 0..3 {
        let script = rack.script(at(now), mac(1));
        assert!(try_claim(&script).is_some());
    }
    assert_eq!(rack.stages(), [Stage::Script]);
    let claim = claim(&rack.script(at(4), mac(1)));
    rack.redeem(at(5), claim, 1);
    rack.redeem(at(6), claim, 1);
    assert_eq!(rack.stages(), [Stage::Script, Stage::Agent]);
}

#[test]
fn t22_nothing_is_promised_when_the_journal_has_stopped() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.prompt = false;
    assert_eq!(rack.ask(at(1), Request::Redeem { claim, key: key(1) }), None);
    rack.engine.handle_journal_stopped();
    assert_eq!(rack.answer(), None, "what was held never comes");
    assert_eq!(refused(rack.ask(at(2), Request::Redeem { claim, key: key(2) }).expect("at once")), Refusal::Stopped);
    assert!(try_claim(&rack.script(at(3), mac(1))).is_none());
}

#[test]
fn observations_stay_until_acknowledged_and_their_numbers_have_no_gap() {
    let mut rack = deploying();
    let claim = claim(&rack.script(at(0), mac(1)));
    rack.redeem(at(1), claim, 1);
    let all = rack.engine.observations(0, 100);
    assert!(all.len() >= 3 && all.iter().zip(1..).all(|(one, number)| one.sequence == number));
    rack.engine.handle_acknowledged(2);
    rack.drain();
    rack.restart(at(2));
    assert_eq!(rack.engine.observations(0, 100), all[2..]);
    rack.engine.handle_acknowledged(u64::MAX);
    rack.drain();
    // The journal is compacted, and the numbers go on.
    let live = rack.engine.live_records();
    rack.journal = live.into_iter().map(|payload| (rack.durable, payload)).collect();
    rack.restart(at(3));
    assert_eq!(rack.engine.observations(0, 100), []);
    assert_eq!(rack.report(at(4), 1, 1, Report::Finished), Answer::Done, "the agent is known as before");
    assert_eq!(rack.engine.observations(0, 1)[0].sequence, all.len() as u64 + 1);
}
