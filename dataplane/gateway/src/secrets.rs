//! Secrets of operations in progress: in memory only, for at most a day, wiped when dropped (`threat-model.md` T2, T16).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use bootstorm_api::agent::Secrets;
use bootstorm_snapshot::OperationId;
use zeroize::Zeroizing;

use crate::limits;

/// The secrets held.
#[derive(Default)]
pub(crate) struct SecretStore {
    held: Mutex<HashMap<OperationId, Held>>,
}

struct Held {
    /// The JSON as it came, so that one wipe clears every copy we made.
    json: Zeroizing<Vec<u8>>,
    since: Instant,
}

impl SecretStore {
    /// Holds the JSON of an operation's secrets; `false` if there is no room.
    pub(crate) fn hold(&self, now: Instant, operation: OperationId, json: Vec<u8>) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, held| now.saturating_duration_since(held.since) < limits::SECRETS_HELD);
        if held.len() >= limits::SECRETS_MAX && !held.contains_key(&operation) {
            return false;
        }
        held.insert(operation, Held { json: Zeroizing::new(json), since: now });
        true
    }

    /// Forgets an operation's secrets.
    pub(crate) fn forget(&self, operation: OperationId) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&operation);
    }

    /// The secrets of an operation, if they are here.
    pub(crate) fn of(&self, now: Instant, operation: OperationId) -> Option<Secrets> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get(&operation)?;
        if now.saturating_duration_since(held.since) >= limits::SECRETS_HELD {
            return None;
        }
        serde_json::from_slice(&held.json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t16_secrets_are_held_a_day_at_most_and_forgotten_on_request() {
        let store = SecretStore::default();
        let (operation, start) = (OperationId::new(1, [1; 10]), Instant::now());
        let secrets =
            Secrets { user_data: Some(bootstorm_api::agent::base64_text::Base64(b"x".to_vec())), vendor_data: None };
        assert!(store.hold(start, operation, serde_json::to_vec(&secrets).expect("json")));
        assert_eq!(store.of(start, operation), Some(secrets));
        assert_eq!(store.of(start + limits::SECRETS_HELD, operation), None);
        store.forget(operation);
        assert_eq!(store.of(start, operation), None);
    }
}
