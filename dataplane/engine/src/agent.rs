//! What agents ask and report, once the gateway has ended their TLS: claims, plans, reports, the ready signal.
//!
//! The types mirror `api::local`, which this crate may not know; `rackd` converts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bootstorm_snapshot::limits::TEXT_BYTES_MAX;
use bootstorm_snapshot::observation::{Failure, Progress, ReadyResult};
use bootstorm_snapshot::plan::After;
use bootstorm_snapshot::record::Answer as BootAnswer;
use bootstorm_snapshot::{
    ClaimHash, CredentialHash, Inventory, KeyHash, MachineId, Observation, Observed, Plan, Stage, Subject, Task,
};

use crate::attempts::{Agent, Outcome, Who, Written};
use crate::engine::{Engine, Output};
use crate::spool::Worth;
use crate::{Time, limits};

/// What an agent asks. `key` is the hash of the key that its TLS session proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Redeems a claim for a key.
    Redeem {
        /// Hash of the claim.
        claim: ClaimHash,
        /// Hash of the agent's key.
        key: KeyHash,
    },
    /// Asks for the plan in force; held until it is another than that of `known`.
    Plan {
        /// Hash of the agent's key.
        key: KeyHash,
        /// Whom the agent believes to speak for.
        known: Option<Subject>,
        /// How long to hold the request; cut to [`limits::PLAN_WAIT_MAX`].
        wait: Duration,
    },
    /// Reports.
    Report {
        /// Hash of the agent's key.
        key: KeyHash,
        /// Number in this attempt, from 1; 0 for what needs none.
        sequence: u64,
        /// What.
        report: Report,
    },
    /// The installed system's signal.
    Ready {
        /// Hash of the credential left in the system.
        credential: CredentialHash,
        /// What it says.
        result: ReadyResult,
    },
}

/// What an agent reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It lives.
    Alive,
    /// A stage is reached, or how far it is.
    Stage {
        /// The stage.
        stage: Stage,
        /// How far: then it is not kept.
        progress: Option<Progress>,
        /// A short text for people.
        detail: String,
    },
    /// What the machine is made of.
    Inventory {
        /// The facts.
        inventory: Box<Inventory>,
    },
    /// The image is on the disk.
    Written {
        /// Hash of the credential left in the system.
        credential: CredentialHash,
    },
    /// The plan's work is done.
    Finished,
    /// The plan cannot be done.
    Failed {
        /// How.
        failure: Failure,
    },
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The key speaks for this subject, with this plan.
    Granted {
        /// Whom.
        subject: Subject,
        /// What it is to do.
        plan: Box<Plan>,
    },
    /// The plan has not changed.
    Unchanged,
    /// It is durable.
    Done,
    /// No.
    Refused {
        /// Why.
        code: Refusal,
        /// A sentence for people.
        detail: &'static str,
    },
}

/// Why an agent is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No such claim, or it has expired.
    UnknownClaim,
    /// The claim was redeemed with another key.
    ClaimTaken,
    /// The key speaks for nobody.
    UnknownKey,
    /// The operation's attempts are used up.
    TooManyAttempts,
    /// The report does not fit the state of the attempt.
    OutOfOrder,
    /// No such credential.
    UnknownCredential,
    /// A limit was reached.
    Busy,
    /// The journal has stopped.
    Stopped,
}

impl Refusal {
    /// The label of its counter.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::UnknownClaim => "unknown_claim",
            Refusal::ClaimTaken => "claim_taken",
            Refusal::UnknownKey => "unknown_key",
            Refusal::TooManyAttempts => "too_many_attempts",
            Refusal::OutOfOrder => "out_of_order",
            Refusal::UnknownCredential => "unknown_credential",
            Refusal::Busy => "busy",
            Refusal::Stopped => "stopped",
        }
    }

    fn detail(self) -> &'static str {
        match self {
            Refusal::UnknownClaim => "no such claim, or it has expired; boot again",
            Refusal::ClaimTaken => "the claim was redeemed with another key",
            Refusal::UnknownKey => "the key speaks for no attempt in force; ask for the plan",
            Refusal::TooManyAttempts => "the operation's attempts are used up",
            Refusal::OutOfOrder => "the report does not fit the state of the attempt",
            Refusal::UnknownCredential => "no such credential",
            Refusal::Busy => "a limit was reached; try again",
            Refusal::Stopped => "the rack's journal has stopped; try again later",
        }
    }
}

/// A request for a plan that is held open.
#[derive(Debug)]
struct HeldPlan {
    key: KeyHash,
    known: Subject,
    plan: Box<Plan>,
    until: Duration,
}

/// All of them, by the gateway's number and by the end of their time.
#[derive(Debug, Default)]
pub(crate) struct HeldPlans {
    by_number: BTreeMap<u64, HeldPlan>,
    by_end: BTreeSet<(Duration, u64)>,
}

impl HeldPlans {
    pub(crate) fn len(&self) -> usize {
        self.by_number.len()
    }

    pub(crate) fn next_timeout(&self) -> Option<Duration> {
        self.by_end.first().map(|(until, _)| *until)
    }

    fn insert(&mut self, number: u64, held: HeldPlan) {
        self.remove(number);
        self.by_end.insert((held.until, number));
        self.by_number.insert(number, held);
    }

    fn remove(&mut self, number: u64) -> Option<HeldPlan> {
        let held = self.by_number.remove(&number)?;
        self.by_end.remove(&(held.until, number));
        Some(held)
    }

    fn pop_due(&mut self, now: Duration) -> Option<(u64, HeldPlan)> {
        let (_, number) = *self.by_end.first().filter(|(until, _)| *until <= now)?;
        Some((number, self.remove(number)?))
    }
}

impl Engine {
    /// Takes a request of the gateway; [`Output::Answer`] with its number comes when what it says is durable.
    pub fn handle_request(&mut self, now: Time, number: u64, request: Request) {
        let answer = if self.is_stopped() {
            self.counters.add("agent_refused", Refusal::Stopped.name());
            let answer = Answer::Refused { code: Refusal::Stopped, detail: Refusal::Stopped.detail() };
            return self.emit(Output::Answer { number, answer });
        } else {
            match request {
                Request::Redeem { claim, key } => self.redeem(now, claim, key).map(Some),
                Request::Plan { key, known, wait } => self.plan(now, number, key, known, wait),
                Request::Report { key, sequence, report } => self.report(now, key, sequence, report).map(Some),
                Request::Ready { credential, result } => self.ready(now, credential, result).map(Some),
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(code) => {
                self.counters.add("agent_refused", code.name());
                Some(Answer::Refused { code, detail: code.detail() })
            }
        };
        if let Some(answer) = answer {
            self.promise(Output::Answer { number, answer });
        }
        self.finish();
    }

    fn redeem(&mut self, now: Time, claim: ClaimHash, key: KeyHash) -> Result<Answer, Refusal> {
        let state = self.attempts.by_claim(claim).ok_or(Refusal::UnknownClaim)?;
        let who = state.who;
        let agent = state.agent.as_ref();
        if let Some(agent) = agent.filter(|agent| agent.claim == Some(claim)) {
            let subject = agent.subject;
            if agent.key != key {
                let detail = "a claim was redeemed a second time, with another key".to_string();
                self.alarm(now, who, "claim-redeemed-twice", Some(subject), detail);
                return Err(Refusal::ClaimTaken);
            }
            self.attempts.heard(key, now.monotonic);
            return self.granted(subject).ok_or(Refusal::UnknownClaim);
        }
        let pending = state.claim.as_ref().filter(|pending| pending.hash == claim).ok_or(Refusal::UnknownClaim)?;
        if now.unix_seconds() >= pending.minted_unix_seconds + limits::CLAIM_SECONDS_MAX {
            return Err(Refusal::UnknownClaim);
        }
        let subject = pending.subject;
        if !self.is_in_force(subject) || state.outcome.is_some() {
            return Err(Refusal::UnknownClaim);
        }
        if state.is_speaking(now.monotonic) {
            let detail = "a claim was redeemed while another agent of the machine speaks".to_string();
            self.alarm(now, who, "claim-while-agent-speaks", Some(subject), detail);
            return Err(Refusal::Busy);
        }
        if state.redeemed >= limits::ATTEMPTS_PER_OPERATION_MAX && matches!(who, Who::Machine { .. }) {
            return Err(Refusal::TooManyAttempts);
        }
        if self.attempts.by_key(key).is_some_and(|other| other.who != who) {
            // One key, two machines: a copied memory image or somebody trying.
            let detail = "a key that speaks for another machine redeems a claim".to_string();
            self.alarm(now, who, "key-of-another-machine", Some(subject), detail);
            return Err(Refusal::ClaimTaken);
        }
        if !self.may_commit() || !self.spool.has_room(Worth::Major) {
            return Err(Refusal::Busy);
        }
        let granted = self.granted(subject).ok_or(Refusal::UnknownClaim)?;
        self.install_agent(
            now,
            who,
            Agent { key, claim: Some(claim), subject, heard: now.monotonic, leaving: false, report_sequence: 0 },
        );
        Ok(granted)
    }

    /// Lets a key speak for a subject, from the next durable moment on.
    fn install_agent(&mut self, now: Time, who: Who, agent: Agent) {
        let (subject, key) = (agent.subject, agent.key);
        self.attempts.change(who, |state| {
            state.claim = None;
            state.agent = Some(agent);
            state.redeemed += 1;
            state.touched_unix_seconds = now.unix_seconds();
        });
        self.journal_state(who);
        self.counters.add("claims", "redeemed");
        self.observe(now, Worth::Major, Observed::Redeemed { subject, key });
        self.observe_stage(now, who, subject, Stage::Agent, String::new());
    }

    fn plan(
        &mut self,
        now: Time,
        number: u64,
        key: KeyHash,
        known: Option<Subject>,
        wait: Duration,
    ) -> Result<Option<Answer>, Refusal> {
        self.attempts.heard(key, now.monotonic);
        let subject = self.current_subject(now, key)?;
        let Some(Answer::Granted { plan, .. }) = self.granted(subject) else {
            // The operation is gone and nothing came after it: the agent waits for what will.
            return match known {
                Some(known) => self.hold(now, number, key, known, idle_plan(subject), wait),
                None => Err(Refusal::UnknownKey),
            };
        };
        match known {
            Some(known) if known == subject => self.hold(now, number, key, known, plan, wait),
            Some(_) | None => Ok(Some(Answer::Granted { subject, plan })),
        }
    }

    fn hold(
        &mut self,
        now: Time,
        number: u64,
        key: KeyHash,
        known: Subject,
        plan: Box<Plan>,
        wait: Duration,
    ) -> Result<Option<Answer>, Refusal> {
        if wait.is_zero() {
            return Ok(Some(Answer::Unchanged));
        }
        if self.held_plans.len() >= limits::HELD_PLANS_MAX {
            return Err(Refusal::Busy);
        }
        let until = now.monotonic + wait.min(limits::PLAN_WAIT_MAX);
        self.held_plans.insert(number, HeldPlan { key, known, plan, until });
        Ok(None)
    }

    /// Answers held requests that a new generation has an answer for.
    pub(crate) fn review_held_plans(&mut self, now: Time) {
        let numbers: Vec<u64> = self.held_plans.by_number.keys().copied().collect();
        for number in numbers {
            let Some(held) = self.held_plans.by_number.get(&number) else { continue };
            let (key, known) = (held.key, held.known);
            let answer = match self.current_subject(now, key) {
                Err(code) => Some(Answer::Refused { code, detail: code.detail() }),
                Ok(subject) => match self.granted(subject) {
                    Some(Answer::Granted { subject, plan }) if subject != known || self.is_new_plan(number, &plan) => {
                        Some(Answer::Granted { subject, plan })
                    }
                    _ => None,
                },
            };
            if let Some(answer) = answer {
                self.held_plans.remove(number);
                self.promise(Output::Answer { number, answer });
            }
            self.finish_if_large();
        }
    }

    fn is_new_plan(&self, number: u64, plan: &Plan) -> bool {
        self.held_plans.by_number.get(&number).is_none_or(|held| *held.plan != *plan)
    }

    /// Answers held requests whose time is over.
    pub(crate) fn expire_held_plans(&mut self, now: Time) {
        while let Some((number, held)) = self.held_plans.pop_due(now.monotonic) {
            self.attempts.heard(held.key, now.monotonic);
            self.promise(Output::Answer { number, answer: Answer::Unchanged });
        }
    }

    /// The gateway's stream is gone: nobody waits for answers to its requests any more.
    pub fn handle_gateway_gone(&mut self) {
        self.held_plans = HeldPlans::default();
    }

    /// Whom a key speaks for now. A known machine's agent goes over to the machine's next operation, an enrolled one's to
    /// the first operation of the machine that it has become; both with the key they have.
    fn current_subject(&mut self, now: Time, key: KeyHash) -> Result<Subject, Refusal> {
        let state = self.attempts.by_key(key).ok_or(Refusal::UnknownKey)?;
        let agent = state.agent.as_ref().ok_or(Refusal::UnknownKey)?;
        let (who, subject) = (state.who, agent.subject);
        let machine = match who {
            Who::Machine { machine } => Some(machine),
            Who::Enrolment { enrolment, .. } => self.view().enrolments.get(&enrolment).map(|record| record.machine),
        };
        let Some(machine) = machine else { return Ok(subject) };
        let Some(BootAnswer::Agent { operation, attempt }) = self.index.boot(machine).map(|boot| boot.answer) else {
            return Ok(subject);
        };
        if matches!(subject, Subject::Attempt { operation: current, .. } if current == operation) {
            return Ok(subject);
        }
        let next = Subject::Attempt { machine, operation, attempt };
        if !self.may_go_over(now, who, machine, operation) || !self.view().plans.contains_key(&operation) {
            return Ok(subject);
        }
        let agent = Agent { key, claim: None, subject: next, heard: now.monotonic, leaving: false, report_sequence: 0 };
        if matches!(who, Who::Enrolment { .. }) {
            self.forget_enrolment(who);
        }
        self.enter_operation(now, machine, operation);
        self.install_agent(now, Who::Machine { machine }, agent);
        Ok(next)
    }

    fn may_go_over(&self, now: Time, who: Who, machine: MachineId, operation: bootstorm_snapshot::OperationId) -> bool {
        if !self.may_commit() || !self.spool.has_room(Worth::Major) {
            return false;
        }
        match self.attempts.get(Who::Machine { machine }) {
            None => true,
            Some(state) if state.who == who => state.operation != Some(operation) || state.redeemed == 0,
            // The machine has an agent of its own, or had one for this operation.
            Some(state) => {
                !state.is_speaking(now.monotonic) && (state.operation != Some(operation) || state.redeemed == 0)
            }
        }
    }

    /// The grant of a subject; `None` if its operation has no plan any more.
    fn granted(&self, subject: Subject) -> Option<Answer> {
        let plan = match subject {
            Subject::Enrolment { .. } => idle_plan(subject),
            Subject::Attempt { operation, .. } => Box::new(self.view().plans.get(&operation)?.clone()),
        };
        Some(Answer::Granted { subject, plan })
    }

    /// Whether the snapshot still asks for what a subject does.
    fn is_in_force(&self, subject: Subject) -> bool {
        match subject {
            Subject::Enrolment { .. } => true,
            Subject::Attempt { machine, operation, .. } => matches!(
                self.index.boot(machine).map(|boot| boot.answer),
                Some(BootAnswer::Agent { operation: current, .. }) if current == operation
            ),
        }
    }

    fn report(&mut self, now: Time, key: KeyHash, sequence: u64, report: Report) -> Result<Answer, Refusal> {
        self.attempts.heard(key, now.monotonic);
        let state = self.attempts.by_key(key).ok_or(Refusal::UnknownKey)?;
        let agent = state.agent.as_ref().ok_or(Refusal::UnknownKey)?;
        let (who, subject, last) = (state.who, agent.subject, agent.report_sequence);
        let outcome = state.outcome;
        if report == Report::Alive {
            return Ok(Answer::Done);
        }
        if sequence != 0 && sequence <= last {
            return Ok(Answer::Done);
        }
        if !self.is_in_force(subject) {
            return Err(Refusal::UnknownKey);
        }
        if let Report::Stage { stage, progress: progress @ Some(_), detail } = report {
            let detail = cut(detail);
            let observed = Observed::Stage { subject, stage, progress, detail };
            self.emit(Output::Observe(Observation { sequence: 0, unix_micros: now.unix_micros, observed }));
            return Ok(Answer::Done);
        }
        if sequence != last + 1 {
            return Err(Refusal::OutOfOrder);
        }
        if !self.may_commit() || !self.spool.has_room(Worth::Major) {
            return Err(Refusal::Busy);
        }
        let plan = match self.granted(subject) {
            Some(Answer::Granted { plan, .. }) => plan,
            _ => return Err(Refusal::UnknownKey),
        };
        let result = matches!(report, Report::Written { .. } | Report::Finished | Report::Failed { .. });
        if result && outcome.is_some() {
            return Err(Refusal::OutOfOrder);
        }
        let effect = effect(report, subject, &plan)?;
        if effect.leaving {
            self.give_leases_back(now, who);
        }
        self.attempts.change(who, |state| {
            if let Some(agent) = &mut state.agent {
                agent.report_sequence = sequence;
                agent.leaving |= effect.leaving;
            }
            // An enrolment has no operation that could be over.
            if matches!(subject, Subject::Attempt { .. }) {
                state.outcome = effect.outcome.or(state.outcome);
            }
            state.written = effect.written.or(state.written.take());
            state.touched_unix_seconds = now.unix_seconds();
        });
        self.journal_state(who);
        self.counters.add("reports", effect.kind);
        self.observe(now, Worth::Major, effect.observed);
        Ok(Answer::Done)
    }

    fn ready(&mut self, now: Time, credential: CredentialHash, result: ReadyResult) -> Result<Answer, Refusal> {
        let state = self.attempts.by_credential(credential).ok_or(Refusal::UnknownCredential)?;
        let who = state.who;
        let written = state.written.clone().ok_or(Refusal::UnknownCredential)?;
        if written.ready {
            // The answer was lost on its way; the signal is one signal.
            return Ok(Answer::Done);
        }
        if !self.may_commit() || !self.spool.has_room(Worth::Major) {
            return Err(Refusal::Busy);
        }
        let subject = written.subject;
        self.attempts.change(who, |state| state.written = Some(Written { ready: true, ..written }));
        self.journal_state(who);
        self.counters.add("reports", "ready");
        self.observe(now, Worth::Major, Observed::Ready { subject, result });
        Ok(Answer::Done)
    }
}

/// What a numbered report does.
struct Effect {
    kind: &'static str,
    observed: Observed,
    outcome: Option<Outcome>,
    written: Option<Written>,
    leaving: bool,
}

fn effect(report: Report, subject: Subject, plan: &Plan) -> Result<Effect, Refusal> {
    let plain = |kind, observed| Effect { kind, observed, outcome: None, written: None, leaving: false };
    Ok(match report {
        Report::Alive => return Err(Refusal::OutOfOrder),
        Report::Stage { stage, progress, detail } => {
            plain("stage", Observed::Stage { subject, stage, progress, detail: cut(detail) })
        }
        Report::Inventory { inventory } => match subject {
            Subject::Enrolment { enrolment, mac } => {
                plain("inventory", Observed::Enlisted { enrolment, mac, inventory })
            }
            Subject::Attempt { .. } => plain("inventory", Observed::Inventory { subject, inventory }),
        },
        Report::Written { credential } => {
            if !matches!(plan.task, Task::Deploy(_)) {
                return Err(Refusal::OutOfOrder);
            }
            let written = Some(Written { subject, credential, ready: false });
            let outcome = Some(Outcome::Written);
            Effect { kind: "written", observed: Observed::Written { subject }, outcome, written, leaving: true }
        }
        Report::Finished => {
            let leaving = plan.after != After::Wait;
            let outcome = Some(Outcome::Finished);
            Effect { kind: "finished", observed: Observed::Finished { subject }, outcome, written: None, leaving }
        }
        Report::Failed { failure } => {
            let failure = Failure { code: cut(failure.code), evidence: cut(failure.evidence), ..failure };
            let observed = Observed::Failed { subject, failure };
            Effect { kind: "failed", observed, outcome: Some(Outcome::Failed), written: None, leaving: false }
        }
    })
}

/// A text cut to what an observation may hold, at a character's edge.
fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}

/// The plan of a machine that nobody has plans for: report what it is, then wait.
fn idle_plan(subject: Subject) -> Box<Plan> {
    let machine = match subject {
        Subject::Attempt { machine, .. } => Some(machine),
        Subject::Enrolment { .. } => None,
    };
    Box::new(Plan { operation: None, machine, hostname: None, task: Task::Enlist, after: After::Wait })
}
