//! Drivers that switch machines on and off, behind one trait.
//!
//! A [`PowerDriver`] is made from a name and parameters for one command and forgotten after it; it holds credentials only that long.
//! [`perform`] is the one way to use it: it sends the command, asks until the machine is in the wanted state, and gives up at the
//! deadline. Everything that a peer says is bounded by [`limits`], and every address is checked by [`fetch`] before it is spoken to.

pub mod fetch;
pub mod limits;
mod manual;
mod webhook;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bootstorm_model::PowerState;
use tokio::time::Instant;

pub use fetch::{Fetcher, Origin};
pub use manual::Manual;
pub use webhook::Webhook;

/// Parameters of a driver by name; values may be secret.
pub type Parameters = BTreeMap<String, String>;

/// What a driver's method gives: an answer to wait for.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, PowerError>> + Send + 'a>>;

/// A way to switch one machine. Methods send one command or question and do not wait for its effect.
pub trait PowerDriver: Send + Sync {
    /// Asks for power on; no error if it is on.
    fn on(&self) -> Answer<'_, ()>;
    /// Asks for power off; no error if it is off.
    fn off(&self) -> Answer<'_, ()>;
    /// The state; [`PowerState::Unknown`] if the driver cannot tell.
    fn query(&self) -> Answer<'_, PowerState>;
    /// Whether commands have an effect that [`PowerDriver::query`] shows.
    fn can_query(&self) -> bool;
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Be on.
    On,
    /// Be off.
    Off,
    /// Be off, then on.
    Cycle,
    /// Say the state.
    Query,
}

/// Why a power command failed. Texts hold no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// Operator: there is no such driver.
    #[error("there is no power driver `{0}`; known are `manual` and `webhook`")]
    UnknownDriver(String),
    /// Operator: a parameter is missing or wrong.
    #[error("power parameter `{name}` {problem}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Peer or operator: the request was refused, or failed.
    #[error(transparent)]
    Fetch(#[from] fetch::FetchError),
    /// Peer: an answer that is neither on nor off.
    #[error("the answer to the power query matches neither `power_on_regex` nor `power_off_regex`: {0}")]
    Unclear(String),
    /// The machine did not reach the state in time.
    #[error("the machine is not {wanted} after {seconds} s; last seen: {seen}")]
    TimedOut {
        /// The wanted state.
        wanted: &'static str,
        /// How long was waited.
        seconds: u64,
        /// What was seen last.
        seen: String,
    },
}

impl PowerError {
    /// Stable code, lower case with dashes.
    pub fn code(&self) -> String {
        match self {
            Self::UnknownDriver(_) | Self::Parameter { .. } => "bad-parameters".to_string(),
            Self::Fetch(error) => error.code(),
            Self::Unclear(_) => "unclear-answer".to_string(),
            Self::TimedOut { .. } => "timed-out".to_string(),
        }
    }

    /// Whether the same command may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::UnknownDriver(_) | Self::Parameter { .. } => false,
            Self::Fetch(error) => error.is_retryable(),
            Self::Unclear(_) | Self::TimedOut { .. } => true,
        }
    }
}

/// The driver of a name, for one machine.
///
/// # Errors
/// [`PowerError::UnknownDriver`] and [`PowerError::Parameter`]; nothing is sent.
pub fn driver(name: &str, parameters: &Parameters, fetcher: &Fetcher) -> Result<Box<dyn PowerDriver>, PowerError> {
    match name {
        "manual" => Ok(Box::new(Manual::new(parameters)?)),
        "webhook" => Ok(Box::new(Webhook::new(parameters, fetcher.clone())?)),
        other => Err(PowerError::UnknownDriver(fetch::excerpt(other.as_bytes()))),
    }
}

/// Whether a driver takes these parameters; addresses are not looked up.
///
/// # Errors
/// As [`driver`].
pub fn check(name: &str, parameters: &Parameters) -> Result<(), PowerError> {
    driver(name, parameters, &Fetcher::default()).map(drop)
}

/// Performs a command and verifies it: sends it (again after a passing failure), then asks until the state is reached.
///
/// # Errors
/// The last failure when `time_max` is over, or the first one that a repetition cannot mend.
pub async fn perform(driver: &dyn PowerDriver, command: Command, time_max: Duration) -> Result<PowerState, PowerError> {
    let started = Instant::now();
    let deadline = started + time_max;
    match command {
        Command::Query => retry(deadline, || driver.query()).await,
        Command::On => reach(driver, PowerState::On, started, deadline).await,
        Command::Off => reach(driver, PowerState::Off, started, deadline).await,
        Command::Cycle => {
            reach(driver, PowerState::Off, started, deadline).await?;
            reach(driver, PowerState::On, started, deadline).await
        }
    }
}

async fn reach(
    driver: &dyn PowerDriver,
    wanted: PowerState,
    started: Instant,
    deadline: Instant,
) -> Result<PowerState, PowerError> {
    if driver.can_query() && driver.query().await == Ok(wanted) {
        return Ok(wanted);
    }
    match wanted {
        PowerState::On => retry(deadline, || driver.on()).await?,
        PowerState::Off | PowerState::Unknown | PowerState::Error => retry(deadline, || driver.off()).await?,
    }
    if !driver.can_query() {
        return Ok(PowerState::Unknown);
    }
    let mut pause = limits::PAUSE_MIN;
    loop {
        let seen = match driver.query().await {
            Ok(state) if state == wanted => return Ok(wanted),
            Ok(state) => state.word().to_string(),
            Err(error) if error.is_retryable() => error.to_string(),
            Err(error) => return Err(error),
        };
        if Instant::now() + pause > deadline {
            let seconds = started.elapsed().as_secs();
            return Err(PowerError::TimedOut { wanted: wanted.word(), seconds, seen });
        }
        tokio::time::sleep(pause).await;
        pause = longer(pause);
    }
}

async fn retry<'a, T>(deadline: Instant, call: impl Fn() -> Answer<'a, T>) -> Result<T, PowerError> {
    let mut pause = limits::PAUSE_MIN;
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) if error.is_retryable() && Instant::now() + pause < deadline => {
                tracing::debug!(%error, "power command is tried again");
                tokio::time::sleep(pause).await;
                pause = longer(pause);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Twice as long, at most the limit, with up to a quarter of jitter so that a rack of BMCs is not asked in step.
fn longer(pause: Duration) -> Duration {
    let doubled = pause.saturating_mul(2).min(limits::PAUSE_MAX);
    let random = getrandom::u32().unwrap_or(0) % 256;
    doubled - doubled * random / 1024
}

#[cfg(test)]
mod tests;
