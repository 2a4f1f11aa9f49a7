use super::*;

const USABLE: [Usable; 2] = [Usable::Ready, Usable::Deployed];
const ERASE: [Erase; 1] = [Erase::Quick];

fn every_resting() -> Vec<Resting> {
    let mut all = vec![
        Resting::New,
        Resting::FailedCommissioning,
        Resting::Missing,
        Resting::Ready,
        Resting::Reserved,
        Resting::Allocated,
        Resting::Deployed,
        Resting::FailedDeployment,
        Resting::Retired,
        Resting::FailedReleasing,
        Resting::FailedDiskErasing,
    ];
    for usable in USABLE {
        all.extend([Resting::Broken(usable), Resting::FailedTesting(usable)]);
    }
    all
}

/// Every state with every value of its data that a machine can come to have.
fn every_state() -> Vec<State> {
    let mut all = vec![
        State::New,
        State::FailedCommissioning,
        State::Missing,
        State::Ready,
        State::Reserved,
        State::Deployed,
        State::Retired,
        State::Deploying,
        State::Allocated,
        State::FailedDeployment,
        State::Releasing,
        State::FailedReleasing,
        State::FailedDiskErasing,
    ];
    all.extend(ERASE.map(|method| State::DiskErasing { method }));
    for usable in USABLE {
        all.extend([State::Broken { usable }, State::FailedTesting { usable }]);
    }
    for previous in every_resting() {
        all.extend([
            State::RescueMode { previous },
            State::EnteringRescueMode { previous },
            State::FailedEnteringRescueMode { previous },
            State::ExitingRescueMode { previous },
            State::FailedExitingRescueMode { previous },
            State::Testing { previous },
        ]);
    }
    for previous in [
        Resting::New,
        Resting::FailedCommissioning,
        Resting::Ready,
        Resting::Missing,
        Resting::Broken(Usable::Ready),
        Resting::Broken(Usable::Deployed),
    ] {
        all.push(State::Commissioning { previous });
    }
    all
}

fn every_event() -> Vec<Event> {
    let mut all = vec![
        Event::Commission { start: Start::PowerCycle },
        Event::Commission { start: Start::InPlace },
        Event::Reserve,
        Event::Allocate,
        Event::Deploy,
        Event::Release { erase: None },
        Event::Abort,
        Event::Test,
        Event::EnterRescueMode,
        Event::ExitRescueMode,
        Event::MarkBroken,
        Event::MarkFixed,
        Event::OverrideFailedTesting,
        Event::Retire,
        Event::Restore,
        Event::MarkMissing,
        Event::Commissioned { then: AfterCommissioning::Ready },
        Event::Commissioned { then: AfterCommissioning::Test },
        Event::SystemReady,
        Event::Erased,
        Event::PoweredOff,
        Event::TestsPassed,
        Event::RescueEntered,
        Event::RescueExited,
        Event::Failed,
        Event::TimedOut,
    ];
    all.extend(ERASE.map(|method| Event::Release { erase: Some(method) }));
    all
}

#[test]
fn every_state_with_every_event_is_refused_with_a_reason_or_moves_along_a_legal_edge() {
    for state in every_state() {
        for event in every_event() {
            match transition(&state, &event) {
                Ok(step) => {
                    assert_eq!(step.from, state);
                    assert!(
                        is_legal(state.status(), step.next.status()),
                        "{state:?} with {event:?} goes to {:?}, which the table forbids",
                        step.next
                    );
                }
                Err(refused) => {
                    let text = refused.to_string();
                    assert!(text.contains(event.verb()) && text.contains(state.status().name()), "{text}");
                    assert!(text.len() > 30, "{text}");
                }
            }
        }
    }
}

/// An abort that led somewhere the walk above has no state for would escape it.
#[test]
fn every_state_that_can_be_reached_is_in_the_walk() {
    let walked = every_state();
    let mut reached = vec![State::New, State::Missing, State::Retired];
    let mut at = 0;
    while let Some(state) = reached.get(at).copied() {
        assert!(walked.contains(&state), "{state:?} is reachable and not walked");
        for event in every_event() {
            if let Ok(step) = transition(&state, &event)
                && !reached.contains(&step.next)
            {
                reached.push(step.next);
            }
        }
        at += 1;
    }
    for status in Status::ALL {
        assert!(reached.iter().any(|state| state.status() == status), "no way leads to {status}");
    }
}

#[test]
fn every_state_has_a_way_back_to_ready() {
    for start in every_state() {
        let mut reached = vec![start];
        let mut at = 0;
        while let Some(state) = reached.get(at).copied() {
            for event in every_event() {
                if let Ok(step) = transition(&state, &event)
                    && !reached.contains(&step.next)
                {
                    reached.push(step.next);
                }
            }
            at += 1;
        }
        assert!(reached.contains(&State::Ready), "{start:?} is a dead end");
    }
}

#[test]
fn each_in_progress_state_fails_into_the_state_it_names() {
    for state in every_state() {
        for event in [Event::Failed, Event::TimedOut] {
            match (state.status().in_progress(), transition(&state, &event)) {
                (Some(progress), Ok(step)) => {
                    assert_eq!(step.next.status(), progress.failure);
                    assert!(progress.deadline_seconds >= 300);
                    assert!(step.effects.contains(&Effect::RevokeAttempt), "{state:?}");
                }
                (None, Err(_)) => {}
                (progress, step) => panic!("{state:?}: {progress:?} but {step:?}"),
            }
        }
    }
}

#[test]
fn whatever_changes_the_boot_answer_is_published_before_power() {
    for state in every_state() {
        for event in every_event() {
            let Ok(step) = transition(&state, &event) else { continue };
            let position = |wanted: fn(&Effect) -> bool| step.effects.iter().position(wanted);
            let publish = position(|effect| matches!(effect, Effect::PublishSnapshot));
            if state.status().boot_purpose() != step.next.status().boot_purpose() {
                assert!(publish.is_some(), "{state:?} with {event:?}");
            }
            let power = position(|effect| {
                matches!(effect, Effect::PowerOn { .. } | Effect::PowerOff | Effect::PowerCycle { .. })
            });
            if let Some(power) = power {
                assert!(publish.is_some_and(|publish| publish < power), "{state:?} with {event:?}");
            }
        }
    }
}

#[test]
fn the_table_names_each_status_once_and_codes_are_those_of_maas() {
    assert_eq!(LEGAL.len(), Status::ALL.len());
    for (code, status) in Status::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(status.code()), code);
        assert_eq!(Status::from_code(status.code()), Some(status));
        assert_eq!(Status::from_word(status.word()), Some(status));
        assert_eq!(LEGAL.iter().filter(|(from, _)| *from == status).count(), 1);
        let text = serde_json::to_string(&status).expect("a status is a string");
        assert_eq!(text, format!("\"{}\"", status.word()));
    }
    assert_eq!(Status::from_code(23), None);
    assert_eq!((Status::Deployed.code(), Status::Allocated.code(), Status::FailedTesting.code()), (6, 10, 22));
    assert_eq!(Status::FailedReleasing.name(), "Releasing failed");
}

#[test]
fn allocate_and_deploy_are_one_step_for_a_ready_machine() {
    let step = transition(&State::Ready, &Event::Allocate).and_then(|step| step.then(&Event::Deploy)).expect("legal");
    assert_eq!((step.from, step.next), (State::Ready, State::Deploying));
    assert_eq!(
        step.effects,
        [Effect::PublishSnapshot, Effect::PushSecrets, Effect::PowerCycle { boot: BootFrom::Network }]
    );
}

#[test]
fn an_excursion_of_a_deployed_machine_ends_with_its_system_running() {
    let entering = transition(&State::Deployed, &Event::EnterRescueMode).expect("legal").next;
    let rescue = transition(&entering, &Event::RescueEntered).expect("legal").next;
    let exiting = transition(&rescue, &Event::ExitRescueMode).expect("legal");
    assert!(exiting.effects.contains(&Effect::PowerCycle { boot: BootFrom::Disk }));
    assert_eq!(transition(&exiting.next, &Event::RescueExited).expect("legal").next, State::Deployed);
    let broken = transition(&rescue, &Event::MarkBroken).expect("legal").next;
    assert_eq!(transition(&broken, &Event::MarkFixed).expect("legal").next, State::Deployed);
}

#[test]
fn a_locked_machine_refuses_every_request_and_no_report() {
    let locked = Flags { locked: true, held: false };
    for event in every_event() {
        match event.origin() {
            Origin::Request => assert_eq!(permit(locked, &event), Err(Refused::Locked { event })),
            Origin::Report => assert_eq!(permit(locked, &event), Ok(())),
        }
    }
    assert!(State::Deployed.may_lock() && State::Deploying.may_lock() && !State::Ready.may_lock());
}

#[test]
fn a_held_machine_boots_nothing_but_can_be_given_up() {
    let held = Flags { locked: false, held: true };
    for event in [
        Event::Deploy,
        Event::Test,
        Event::EnterRescueMode,
        Event::Commission { start: Start::InPlace },
        Event::Release { erase: Some(Erase::Quick) },
    ] {
        assert_eq!(decide(held, &State::Allocated, &event), Err(Refused::Held { event }));
    }
    for event in [Event::Release { erase: None }, Event::MarkBroken] {
        assert!(decide(held, &State::Allocated, &event).is_ok());
    }
}

#[test]
fn states_survive_being_written_down() {
    for state in every_state() {
        let text = serde_json::to_string(&state).expect("a state is JSON");
        assert_eq!(serde_json::from_str::<State>(&text).expect("and back"), state, "{text}");
        assert!(text.contains(&format!("\"status\":\"{}\"", state.status().word())), "{text}");
    }
}

#[test]
fn the_diagram_has_every_status_and_every_edge() {
    let diagram = diagram();
    assert!(diagram.starts_with("stateDiagram-v2\n"));
    let edges: usize = LEGAL.iter().map(|(_, next)| next.len()).sum();
    assert_eq!(diagram.matches(" --> ").count(), edges + CREATED.len());
    assert!(diagram.contains("    allocated --> deploying\n"));
    assert!(diagram.contains("deploying : Deploying (30 min, else Failed deployment)\n"));
}
