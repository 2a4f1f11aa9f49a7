//! Query plans of the lists that can grow: none reads a whole table, none sorts.

use super::{SqliteStore, address, effect, list};
use crate::types::{LogFilter, MachineFilter, OperationFilter, Order, Page};
use bootstorm_model::{OperationState, Status};
use bootstorm_snapshot::{EventId, MachineId, OperationId};
use sqlx::{AssertSqlSafe, Row};

async fn plan(store: &SqliteStore, sql: &str) -> String {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
    let rows = sqlx::query(explain).fetch_all(&store.readers).await.expect("a plan");
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
}

#[tokio::test]
async fn lists_that_can_grow_use_an_index_for_filter_and_order() {
    let directory = std::env::temp_dir().join(format!("bootstorm-plans-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let store = SqliteStore::open(&directory.join("db")).await.expect("a store");
    let machine = MachineId::from_random([1; 8]);
    let operation = OperationId::new(1, [1; 10]);
    let page = Page { after: Some("n001".parse().expect("a name")), limit: 10 };
    let machines = |filter: MachineFilter| list::machines(&filter, &page).expect("a filter").sql().as_str().to_string();
    let operations = |filter| list::operations(&filter, &Page::first(10)).sql().as_str().to_string();
    let log = |filter, order| {
        list::log(&filter, order, &Page { after: Some(EventId(5)), limit: 10 }).sql().as_str().to_string()
    };
    let statements = [
        machines(MachineFilter::default()),
        machines(MachineFilter { statuses: vec![Status::Ready], ..MachineFilter::default() }),
        machines(MachineFilter { pool: Some("default".parse().expect("a name")), ..MachineFilter::default() }),
        machines(MachineFilter { owner: Some("alice".to_string()), ..MachineFilter::default() }),
        machines(MachineFilter { hostname_glob: Some("n*".to_string()), ..MachineFilter::default() }),
        operations(OperationFilter::default()),
        operations(OperationFilter { machine: Some(machine), state: None }),
        operations(OperationFilter { machine: None, state: Some(OperationState::Running) }),
        log(LogFilter::default(), Order::OldestFirst),
        log(LogFilter { machine: Some(machine), operation: None }, Order::NewestFirst),
        log(LogFilter { machine: None, operation: Some(operation) }, Order::NewestFirst),
        list::OVERDUE.to_string(),
        list::BY_SYSTEM_UUID.to_string(),
        address::IN_SUBNET.to_string(),
        effect::DUE.to_string(),
    ];
    for statement in statements {
        let plan = plan(&store, &statement).await;
        assert!(!plan.contains("TEMP B-TREE"), "{statement}\n{plan}");
        assert!(!plan.contains("SCAN"), "{statement}\n{plan}");
    }
    store.close().await;
    std::fs::remove_dir_all(&directory).expect("removed");
}
