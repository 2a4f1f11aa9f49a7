//! What a machine boots now: from the snapshot's answer and this rack's journal to a script.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use bootstorm_proto::http::server::Method;
use bootstorm_snapshot::observation::Failure;
use bootstorm_snapshot::record::{Answer, Unknown};
use bootstorm_snapshot::{
    Architecture, AttemptId, ClaimHash, EnrolmentId, Mac, MachineId, Observed, OperationId, Stage, Subject,
};

use crate::attempts::{Claim, ClaimValue, Outcome, Who};
use crate::engine::{Engine, Output};
use crate::leases::Lease;
use crate::record::Record;
use crate::script::{self, Action, AgentBoot, Format};
use crate::spool::Worth;
use crate::{Entropy, Time, limits};

/// A request for a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptRequest {
    /// The caller's number; comes back with the script.
    pub ticket: u64,
    /// The interface that the machine boots from.
    pub mac: Mac,
    /// The rack's address as the machine sees it.
    pub rack: Ipv4Addr,
    /// Which loader asks.
    pub format: Format,
    /// GET mints a claim, HEAD never does.
    pub method: Method,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Decision {
    /// Nothing for this machine.
    Ignore,
    /// Ask again.
    Again { seconds: u64, why: String },
    /// The disk.
    Local,
    /// The agent, as this subject.
    Agent { who: Who, subject: Subject, title: String },
}

impl Engine {
    /// Answers a request for a script with [`Output::Script`]: at once, or when the claim in it is durable.
    pub fn handle_script(&mut self, now: Time, entropy: Entropy, request: ScriptRequest) {
        let decision = self.decide(now, entropy, &request);
        let text = match decision {
            Decision::Ignore => {
                self.counters.add("scripts", "ignored");
                None
            }
            Decision::Again { seconds, why } => {
                self.counters.add("scripts", "again");
                Some(self.render(&request, &Action::Again { seconds, why: &why }))
            }
            Decision::Local => {
                self.counters.add("scripts", "local");
                Some(self.render(&request, &Action::Local))
            }
            Decision::Agent { who, subject, title } => {
                self.counters.add("scripts", "agent");
                Some(self.agent_script(now, entropy, &request, who, subject, &title))
            }
        };
        let output = Output::Script { ticket: request.ticket, text };
        if self.is_stopped() {
            // Nothing will be durable any more; the script that says so needs no promise.
            return self.emit(output);
        }
        self.promise(output);
        self.finish();
    }

    fn render(&self, request: &ScriptRequest, action: &Action<'_>) -> String {
        let http = SocketAddrV4::new(request.rack, self.config.http_port);
        script::write(request.format, action, request.mac, http)
    }

    fn decide(&mut self, now: Time, entropy: Entropy, request: &ScriptRequest) -> Decision {
        let wait = |why: &str| Decision::Again { seconds: limits::WAIT_SCRIPT_SECONDS, why: why.to_string() };
        if self.is_stopped() || !self.may_commit() {
            return wait("the rack cannot write to its disk");
        }
        let Some(site) = self.view().site.as_ref() else { return wait("the rack has no snapshot yet") };
        let unknown = site.unknown;
        let Some(machine) = self.index.machine(request.mac) else {
            return match unknown {
                Unknown::Ignore => Decision::Ignore,
                Unknown::Enlist => self.decide_unknown(now, entropy, request),
            };
        };
        let Some(boot) = self.index.boot(machine) else { return wait("the machine has no record") };
        let hostname = boot.hostname.clone();
        match boot.answer {
            Answer::Wait => wait(&format!("nothing to do for {hostname}")),
            Answer::Local { .. } => Decision::Local,
            Answer::Agent { operation, attempt } => {
                self.decide_agent(now, entropy, request, machine, operation, attempt, &hostname)
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one decision over one record's fields")]
    fn decide_agent(
        &mut self,
        now: Time,
        entropy: Entropy,
        request: &ScriptRequest,
        machine: MachineId,
        operation: OperationId,
        attempt: AttemptId,
        hostname: &str,
    ) -> Decision {
        let wait = |why: String| Decision::Again { seconds: limits::WAIT_SCRIPT_SECONDS, why };
        let who = Who::Machine { machine };
        if request.method == Method::Get {
            self.enter_operation(now, machine, operation);
        }
        let state = self.attempts.get(who).filter(|state| state.operation == Some(operation));
        match state.and_then(|state| state.outcome) {
            Some(Outcome::Written) => return Decision::Local,
            Some(Outcome::Finished) => return wait(format!("the work on {hostname} is done")),
            Some(Outcome::Failed) => return wait(format!("the work on {hostname} has failed")),
            None => {}
        }
        if !self.has_environment(self.architecture(request.mac, Some(machine))) {
            return wait(format!("no boot environment for {hostname}"));
        }
        if let Some(pause) = self.pause_while_speaking(now, who) {
            return pause;
        }
        let redeemed = self.attempts.get(who).map_or(0, |state| state.redeemed);
        if redeemed >= limits::ATTEMPTS_PER_OPERATION_MAX {
            self.give_up(now, who, request.method);
            return wait(format!("the attempts for {hostname} are used up"));
        }
        let claimed = self.attempts.get(who).and_then(|state| Some(state.claim.as_ref()?.subject));
        let subject = claimed.unwrap_or_else(|| {
            let fresh = || AttemptId::new(now.unix_milliseconds(), entropy.id);
            let attempt = if redeemed == 0 { attempt } else { fresh() };
            Subject::Attempt { machine, operation, attempt }
        });
        Decision::Agent { who, subject, title: format!("{hostname} starts its agent, attempt {}", redeemed + 1) }
    }

    fn decide_unknown(&mut self, now: Time, entropy: Entropy, request: &ScriptRequest) -> Decision {
        let wait = |why: &str| Decision::Again { seconds: limits::WAIT_SCRIPT_SECONDS, why: why.to_string() };
        if !self.has_environment(self.architecture(request.mac, None)) {
            return wait("no boot environment for unknown machines");
        }
        let who = match self.attempts.enrolment_of(request.mac) {
            Some(who) => who,
            None if request.method == Method::Head => {
                Who::Enrolment { enrolment: EnrolmentId::new(now.unix_milliseconds(), entropy.id), mac: request.mac }
            }
            None => match self.enrol(now, entropy, request.mac) {
                Some(who) => who,
                None => return wait("too many unknown machines"),
            },
        };
        if let Some(pause) = self.pause_while_speaking(now, who) {
            return pause;
        }
        let Who::Enrolment { enrolment, mac } = who else { return Decision::Ignore };
        let subject = Subject::Enrolment { enrolment, mac };
        Decision::Agent { who, subject, title: format!("unknown machine {mac} starts the agent") }
    }

    /// A name of ours for a machine that nobody knows.
    fn enrol(&mut self, now: Time, entropy: Entropy, mac: Mac) -> Option<Who> {
        if self.attempts.enrolments() >= limits::ENROLMENTS_MAX {
            let stale = self.attempts.stalest_enrolment(now.monotonic)?;
            self.forget_enrolment(stale);
        }
        let enrolment = EnrolmentId::new(now.unix_milliseconds(), entropy.id);
        let who = Who::Enrolment { enrolment, mac };
        let architecture = self.active_lease(mac).and_then(|lease| lease.architecture);
        self.attempts.change(who, |state| state.touched_unix_seconds = now.unix_seconds());
        self.journal_state(who);
        self.observe(now, Worth::Minor, Observed::UnknownMachine { enrolment, mac, architecture });
        Some(who)
    }

    pub(crate) fn forget_enrolment(&mut self, who: Who) {
        if let Who::Enrolment { enrolment, .. } = who {
            self.attempts.remove(who);
            self.journal(Record::EnrolmentForgotten { enrolment });
        }
    }

    /// While its agent speaks a machine gets no claim (T3): whoever asks may be somebody else.
    fn pause_while_speaking(&mut self, now: Time, who: Who) -> Option<Decision> {
        let state = self.attempts.get(who).filter(|state| state.is_speaking(now.monotonic))?;
        let left = limits::AGENT_SILENCE.saturating_sub(state.silence(now.monotonic).unwrap_or_default());
        let subject = state.agent.as_ref().map(|agent| agent.subject);
        let detail = "a boot script was asked for while the machine's agent speaks".to_string();
        self.alarm(now, who, "script-while-agent-speaks", subject, detail);
        let seconds = (left + Duration::from_millis(999)).as_secs().clamp(5, limits::AGENT_SILENCE.as_secs());
        Some(Decision::Again { seconds, why: "an agent of this machine is at work".to_string() })
    }

    /// The operation has no attempt left: that is a failure, said once.
    fn give_up(&mut self, now: Time, who: Who, method: Method) {
        let Some(subject) = self.attempts.get(who).and_then(|state| Some(state.agent.as_ref()?.subject)) else {
            return;
        };
        if method == Method::Head || !self.spool.has_room(Worth::Major) {
            return;
        }
        self.attempts.change(who, |state| state.outcome = Some(Outcome::Failed));
        self.journal_state(who);
        let evidence = format!("{} agents fell silent", limits::ATTEMPTS_PER_OPERATION_MAX);
        let failure = Failure { stage: Stage::Agent, code: "attempts-used-up".into(), evidence };
        self.observe(now, Worth::Major, Observed::Failed { subject, failure });
    }

    /// Makes the state of a machine be about this operation.
    pub(crate) fn enter_operation(&mut self, now: Time, machine: MachineId, operation: OperationId) {
        let who = Who::Machine { machine };
        if self.attempts.get(who).is_some_and(|state| state.operation == Some(operation)) {
            return;
        }
        self.attempts.change(who, |state| {
            state.operation = Some(operation);
            state.redeemed = 0;
            state.claim = None;
            state.outcome = None;
            state.written = None;
            (state.staged, state.staged_for) = (0, None);
            state.touched_unix_seconds = now.unix_seconds();
        });
        self.journal_state(who);
    }

    fn agent_script(
        &mut self,
        now: Time,
        entropy: Entropy,
        request: &ScriptRequest,
        who: Who,
        subject: Subject,
        title: &str,
    ) -> String {
        let claim = match request.method {
            Method::Get => {
                let claim = self.claim(now, entropy, who, subject);
                self.observe_stage(now, who, subject, Stage::Script, String::new());
                hex(&claim)
            }
            // The same length, so that the head is that of a GET.
            Method::Head => "0".repeat(32),
        };
        let machine = match who {
            Who::Machine { machine } => Some(machine),
            Who::Enrolment { .. } => None,
        };
        let architecture = self.architecture(request.mac, machine);
        let lease = self.active_lease(request.mac);
        let subnet = lease.and_then(|lease| self.view().subnets.get(&lease.subnet));
        let command_line = self.index.environment(architecture).map(|environment| environment.command_line.as_slice());
        let boot = AgentBoot {
            title,
            architecture,
            command_line: command_line.unwrap_or_default(),
            agents: SocketAddrV4::new(request.rack, self.config.agent_port),
            claim: &claim,
            address: lease.zip(subnet).map(|(lease, subnet)| (lease.address, subnet.cidr.prefix_bits())),
            gateway: subnet.and_then(|subnet| subnet.gateway),
            with_ca: !self.index.ca_initrd().is_empty(),
        };
        self.render(request, &Action::Agent(boot))
    }

    /// The claim in force, or a new one where there is none, it is too old, or its octets were lost in a restart.
    fn claim(&mut self, now: Time, entropy: Entropy, who: Who, subject: Subject) -> [u8; 16] {
        let fresh = |claim: &&Claim| now.unix_seconds() < claim.minted_unix_seconds + limits::CLAIM_SECONDS_MAX;
        let known = self.attempts.get(who).and_then(|state| state.claim.as_ref().filter(fresh)?.value);
        if let Some(ClaimValue(value)) = known {
            return value;
        }
        let claim = Claim {
            hash: ClaimHash::of(&entropy.claim),
            value: Some(ClaimValue(entropy.claim)),
            minted_unix_seconds: now.unix_seconds(),
            subject,
        };
        self.attempts.change(who, |state| {
            state.claim = Some(claim);
            state.touched_unix_seconds = now.unix_seconds();
        });
        self.journal_state(who);
        self.counters.add("claims", "minted");
        entropy.claim
    }

    /// A machine has fetched a loader or kernel, as the address it came from lets one suppose. For its trace only.
    pub fn handle_fetched(&mut self, now: Time, from: IpAddr, stage: Stage) {
        let IpAddr::V4(address) = from else { return };
        let Some(mac) = self.leases.holder(address).map(|lease| lease.mac) else { return };
        if !self.may_commit() {
            return;
        }
        let (who, first) = match self.index.machine(mac).and_then(|machine| self.index.boot(machine)) {
            Some(boot) => match boot.answer {
                Answer::Agent { operation, attempt } => {
                    let who = Who::Machine { machine: boot.machine };
                    let current = self.attempts.get(who).is_some_and(|state| state.operation == Some(operation));
                    (current.then_some(who), Some(attempt))
                }
                Answer::Wait | Answer::Local { .. } => (None, None),
            },
            None => (self.attempts.enrolment_of(mac), None),
        };
        let Some(who) = who else { return };
        if let Some(subject) = self.attempts.get(who).and_then(|state| state.booting_subject(first)) {
            self.observe_stage(now, who, subject, stage, address.to_string());
            self.finish();
        }
    }

    /// The client's lease that ends last.
    pub(crate) fn active_lease(&self, mac: Mac) -> Option<&Lease> {
        let leases = self.view().subnets.keys().filter_map(|subnet| self.leases.of_client(*subnet, mac));
        leases.filter(|lease| !lease.ended).max_by_key(|lease| lease.until_unix_seconds)
    }

    fn architecture(&self, mac: Mac, machine: Option<MachineId>) -> Architecture {
        let recorded = machine.and_then(|machine| self.index.boot(machine)?.architecture);
        let said = || self.active_lease(mac).and_then(|lease| lease.architecture);
        recorded.or_else(said).unwrap_or(Architecture::Amd64)
    }

    fn has_environment(&self, architecture: Architecture) -> bool {
        self.index.environment(architecture).is_some()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
