//! Deadlines: an operation whose stage took too long fails, with the stage, a code and the last evidence.
//!
//! The sweeper sleeps until the next deadline or until something changes. For a while after control's start nothing is declared
//! overdue, since racks first deliver what they have seen while control was away.

use std::sync::Arc;
use std::time::Duration;

use bootstorm_model::lifecycle::Event;
use bootstorm_model::{Outcome, Timestamp};
use bootstorm_store::Change;

use crate::control::{Control, now};
use crate::error::{Error, Result};

/// Watches deadlines until the task is dropped.
pub(crate) async fn run(control: Arc<Control>, grace: Duration) {
    tokio::time::sleep(grace).await;
    let mut changed = control.subscribe();
    loop {
        changed.borrow_and_update();
        if let Err(error) = sweep(&control, now()).await {
            tracing::error!(%error, "deadlines cannot be checked");
        }
        let wait = match control.store.next_operation_deadline().await {
            Ok(Some(deadline)) => {
                let micros = u64::try_from(deadline.0.saturating_sub(now().0)).unwrap_or(0);
                // A deadline is overdue once it is past, not when it is reached.
                Duration::from_micros(micros) + Duration::from_millis(1)
            }
            Ok(None) => Duration::from_secs(3600),
            Err(_) => Duration::from_secs(1),
        };
        // No deadline is shorter than seconds, so a storm of changes need not be followed one by one.
        tokio::time::sleep(Duration::from_secs(1).min(wait)).await;
        tokio::select! {
            _ = changed.changed() => {}
            () = tokio::time::sleep(wait.saturating_sub(Duration::from_secs(1))) => {}
        }
    }
}

/// Fails everything that is overdue at `now`.
pub(crate) async fn sweep(control: &Arc<Control>, now: Timestamp) -> Result<()> {
    loop {
        let overdue = control.store.overdue_operations(now, bootstorm_store::limits::PAGE_ITEMS_MAX).await?;
        if overdue.is_empty() {
            return Ok(());
        }
        for operation in overdue {
            let Some(failure) = operation.overdue(now) else { continue };
            tracing::warn!(operation = %operation.id, code = failure.code, evidence = failure.evidence, "an operation is overdue");
            let outcome = Outcome::Failed(failure.clone());
            let alone = Change::FinishOperation { operation: operation.id, outcome };
            match operation.machine {
                Some(machine) => match control.fail(machine, operation.id, Event::TimedOut, failure).await {
                    Err(Error::NotFound { .. }) => control.commit(vec![alone]).await?,
                    other => other?,
                },
                None => {
                    control.imports.stop(operation.id);
                    control.commit(vec![alone]).await?;
                }
            }
            // One that is running although its machine has moved on would be found again and again.
            let left = control.store.operation(operation.id).await?;
            if let Some(left) = left.filter(|left| left.overdue(now).is_some()) {
                let outcome = left.overdue(now).map_or(Outcome::Cancelled, Outcome::Failed);
                control.commit(vec![Change::FinishOperation { operation: left.id, outcome }]).await?;
            }
        }
    }
}
