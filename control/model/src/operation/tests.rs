use super::*;

const KINDS: [OperationKind; 7] = [
    OperationKind::Commission,
    OperationKind::Deploy,
    OperationKind::Release,
    OperationKind::Test,
    OperationKind::EnterRescueMode,
    OperationKind::ExitRescueMode,
    OperationKind::ImageImport,
];

fn operation() -> Operation {
    Operation {
        id: OperationId::new(1, [0; 10]),
        machine: None,
        attempt: AttemptId::new(1, [0; 10]),
        parameters: Parameters::Commission,
        state: OperationState::Running,
        stage: Stage::Queued,
        progress: None,
        deadline: Some(Timestamp(0).plus_seconds(600)),
        failure: None,
        warnings: vec![],
        requested_by: "admin".to_string(),
        idempotency_key: None,
        created: Timestamp(0),
        updated: Timestamp(0),
        finished: None,
    }
}

fn second(seconds: u32) -> Timestamp {
    Timestamp(0).plus_seconds(seconds)
}

#[test]
fn stages_only_go_forward_and_each_moves_the_deadline() {
    let mut operation = operation();
    assert!(operation.advance(Stage::Kernel, None, second(30)));
    assert_eq!(operation.deadline, Some(second(330)));
    assert!(!operation.advance(Stage::Dhcp, None, second(31)), "a late report");
    assert!(!operation.advance(Stage::Kernel, None, second(31)), "a repeated report");
    assert_eq!(operation.deadline, Some(second(330)));
    assert!(operation.restart(Stage::Dhcp, second(40)));
    assert_eq!((operation.stage, operation.deadline), (Stage::Dhcp, Some(second(340))));
}

#[test]
fn progress_moves_the_deadline_only_if_it_is_progress() {
    let mut operation = operation();
    let at = |bytes| Some(Progress { bytes, bytes_total: 100 });
    assert!(operation.advance(Stage::Write, at(10), second(1)));
    assert!(!operation.advance(Stage::Write, at(10), second(2)));
    assert!(operation.advance(Stage::Write, at(11), second(3)));
    let failure = operation.overdue(second(700)).expect("overdue");
    assert_eq!((failure.stage, failure.code.as_str()), (Stage::Write, "write-stalled"));
    assert!(failure.evidence.contains("11 of 100 bytes"), "{}", failure.evidence);
    assert_eq!(operation.overdue(second(603)), None, "the deadline itself is in time");
}

#[test]
fn what_is_over_stays_over() {
    let mut operation = operation();
    assert!(operation.finish(Outcome::Cancelled, second(5)));
    assert!(!operation.finish(Outcome::Done { warnings: vec![] }, second(6)));
    assert!(!operation.advance(Stage::Ready, None, second(6)));
    assert!(!operation.restart(Stage::Dhcp, second(6)));
    assert_eq!((operation.state, operation.finished), (OperationState::Cancelled, Some(second(5))));
    assert_eq!(operation.overdue(second(1_000_000)), None);
}

#[test]
fn every_kind_runs_from_queued_to_ready_and_every_stage_has_a_deadline_and_a_fix() {
    for kind in KINDS {
        let stages = stages(kind);
        assert_eq!((stages.first(), stages.last()), (Some(&Stage::Queued), Some(&Stage::Ready)));
        assert!(stages.windows(2).all(|pair| pair[0] < pair[1]), "{kind:?}");
        for stage in stages {
            assert!(stage_seconds_max(kind, *stage) >= 60);
            let known = suggested_fix(overdue_code(*stage)).is_some();
            assert!(known || *stage == Stage::Inventory, "{stage:?}");
            assert_eq!(serde_json::to_string(stage).expect("a word"), format!("\"{}\"", stage_word(*stage)));
        }
    }
}

#[test]
fn a_deployment_sets_its_own_deadline_for_the_first_boot() {
    let mut operation = operation();
    operation.parameters = Parameters::Deploy(Box::new(DeployParameters {
        image: ImageId([0; 32]),
        image_name: "x".to_string(),
        disk: DiskSelector::Smallest,
        grow: true,
        start: Start::Auto,
        ssh_authorized_keys: vec![],
        user_data: false,
        ready_seconds_max: 77,
    }));
    assert!(operation.advance(Stage::Written, None, second(1)));
    assert_eq!(operation.deadline, Some(second(78)));
    let text = serde_json::to_string(&operation.parameters).expect("JSON");
    assert!(text.contains("\"kind\":\"deploy\""));
    assert_eq!(serde_json::from_str::<Parameters>(&text).expect("and back"), operation.parameters);
}
