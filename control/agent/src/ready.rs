//! `agent ready`, inside the installed system: posts cloud-init's result to the rack and then removes every trace.

use std::path::{Path, PathBuf};

use bootstorm_api::agent::{Accepted, ReadyRequest};
use bootstorm_snapshot::observation::ReadyResult;
use serde_json::Value;

use crate::limits;
use crate::session::{CallError, anonymous_client, persist, read_answer};
use crate::system::ready_unit::{CA, DIRECTORY, SETTINGS, Settings, UNIT, UNIT_LINK};
use crate::work::cut;

/// cloud-init's own verdict on the boot.
const RESULT: &str = "/run/cloud-init/result.json";
/// Bytes of one warning.
const WARNING_BYTES_MAX: usize = 512;

/// Why the signal was not given.
#[derive(Debug, thiserror::Error)]
pub enum ReadyError {
    /// What the agent left here is gone or unreadable.
    #[error("{0}: {1}")]
    Settings(PathBuf, String),
    /// The rack cannot be reached in this boot; the next one tries again.
    #[error("the rack was not reached in {} s", limits::READY_TIMEOUT.as_secs())]
    Unreachable,
    /// The rack does not know the credential: the deployment was given up or superseded.
    #[error(transparent)]
    Refused(CallError),
}

/// Reports that this system is ready. What the agent left is removed once the rack has answered, whatever it says.
pub fn run() -> Result<(), ReadyError> {
    let directory = Path::new("/").join(DIRECTORY);
    let unreadable = |name: &str| {
        let path = directory.join(name);
        move |why: &dyn std::fmt::Display| ReadyError::Settings(path, why.to_string())
    };
    let settings = std::fs::read(directory.join(SETTINGS)).map_err(|e| unreadable(SETTINGS)(&e))?;
    let settings: Settings = serde_json::from_slice(&settings).map_err(|e| unreadable(SETTINGS)(&e))?;
    let ca_pem = std::fs::read(directory.join(CA)).map_err(|e| unreadable(CA)(&e))?;
    let client = anonymous_client(&ca_pem).map_err(|e| unreadable(CA)(&e))?;
    let request = ReadyRequest { result: result(crate::files::read(Path::new(RESULT), limits::RESULT_BYTES_MAX).ok()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| unreadable(SETTINGS)(&e))?;
    let told = runtime.block_on(async {
        let url = format!("https://{}/v1/ready", settings.rack);
        let post = || {
            let request = client.post(&url).bearer_auth(&settings.credential).json(&request);
            read_answer::<Accepted>(request.timeout(limits::ANSWER_TIMEOUT))
        };
        tokio::time::timeout(limits::READY_TIMEOUT, persist("ready", post)).await
    });
    let told = told.map_err(|_| ReadyError::Unreachable)?;
    remove(Path::new("/"));
    told.map(drop).map_err(ReadyError::Refused)
}

/// What cloud-init's `result.json` says; errors there are warnings of ours.
fn result(bytes: Option<Vec<u8>>) -> ReadyResult {
    let parsed = bytes.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let Some(v1) = parsed.as_ref().and_then(|value| value.get("v1")) else {
        let warnings = vec!["cloud-init left no result that can be read".to_string()];
        return ReadyResult { warnings, datasource: None };
    };
    let text = |value: &Value| value.as_str().map(|text| cut(text.to_string(), WARNING_BYTES_MAX));
    let errors = v1.get("errors").and_then(Value::as_array).into_iter().flatten();
    ReadyResult {
        warnings: errors.filter_map(text).take(limits::WARNINGS_MAX).collect(),
        datasource: v1.get("datasource").and_then(text),
    }
}

/// Removes the unit, the credential and this program below `root`.
fn remove(root: &Path) {
    for path in [UNIT_LINK, UNIT] {
        if let Err(error) = std::fs::remove_file(root.join(path)) {
            crate::log!("{path}: {error}");
        }
    }
    if let Err(error) = std::fs::remove_dir_all(root.join(DIRECTORY)) {
        crate::log!("{DIRECTORY}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::mounted::Root;
    use crate::system::mounted::tests::Scratch;
    use crate::system::ready_unit;

    #[test]
    fn errors_of_cloud_init_are_warnings() {
        let json = br#"{"v1":{"datasource":"DataSourceNoCloud [seed=/var]","errors":["('locale', x)", 7]}}"#;
        let read = result(Some(json.to_vec()));
        assert_eq!(read.warnings, ["('locale', x)"]);
        assert_eq!(read.datasource.as_deref(), Some("DataSourceNoCloud [seed=/var]"));
        for bad in [None, Some(b"".to_vec()), Some(b"[]".to_vec()), Some(b"{\"v1\"".to_vec())] {
            assert_eq!(result(bad).warnings.len(), 1);
        }
        assert_eq!(result(Some(b"{\"v1\":{}}".to_vec())), ReadyResult::default());
    }

    #[test]
    fn nothing_of_ours_is_left() {
        let scratch = Scratch::new("ready");
        let settings = Settings { rack: "10.0.0.1:5249".parse().expect("address"), credential: "x".into() };
        ready_unit::install(&Root::at(&scratch.0).expect("root"), &settings, b"ca", b"program").expect("installed");
        remove(&scratch.0);
        for path in [UNIT, UNIT_LINK, DIRECTORY] {
            assert!(std::fs::symlink_metadata(scratch.0.join(path)).is_err(), "{path}");
        }
    }
}
