//! Waiting for what happens outside of this process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{Error, limits};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes every present and later [`until`] end with [`Error::Interrupted`]. What a handler of Ctrl-C calls.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether [`interrupt`] was called.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Asks `probe` until it answers with a value.
///
/// # Errors
/// [`Error::Timeout`] naming `what` after `deadline`, [`Error::Interrupted`], or the probe's own error, at once.
pub fn until<T>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if is_interrupted() {
            return Err(Error::Interrupted);
        }
        if started.elapsed() >= deadline {
            return Err(Error::Timeout { what: what.to_owned(), after: deadline });
        }
        std::thread::park_timeout(limits::POLL_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_the_wait_and_a_deadline_names_what_was_missing() {
        let mut asked = 0;
        let value = until("three questions", Duration::from_secs(10), || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(value.unwrap(), 3);

        let error = until("the moon", Duration::ZERO, || Ok(None::<()>)).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
