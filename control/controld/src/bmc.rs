//! The bmc role: performs power commands. The only one that opens sealed power parameters, for one command at a time.
//!
//! One command is under way per machine; others for it wait their turn. Nothing is kept between commands.

use std::collections::HashMap;
use std::future::Future;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bootstorm_api::bmc::{Action, Command, PowerFailure, PowerState, Reply};
use bootstorm_api::role::BmcConfig;
use bootstorm_power::{Fetcher, Parameters, PowerError};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use zeroize::Zeroize as _;

use crate::error::{Error, Result};
use crate::seal::Sealer;
use crate::{frames, limits};

/// Runs the role until `stop`: serves each stream to control that the supervisor passes.
///
/// # Errors
/// [`Error::Invalid`] if the configuration names no origin where it should.
pub async fn run_bmc(
    config: BmcConfig,
    mut streams: mpsc::Receiver<StdStream>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let role = Arc::new(Role::new(config)?);
    let mut serving = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            stream = streams.recv() => match stream {
                Some(stream) => {
                    let stream = to_tokio(stream)?;
                    serving.spawn(serve(role.clone(), stream));
                }
                None => {
                    stop.await;
                    return Ok(());
                }
            },
            Some(_) = serving.join_next(), if !serving.is_empty() => {}
        }
    }
}

pub(crate) fn to_tokio(stream: StdStream) -> Result<UnixStream> {
    stream.set_nonblocking(true).map_err(Error::Stream)?;
    UnixStream::from_std(stream).map_err(Error::Stream)
}

struct Role {
    key_file: PathBuf,
    fetcher: Fetcher,
    slots: Semaphore,
    /// Machines with a command under way or waiting, by context.
    busy: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Role {
    fn new(config: BmcConfig) -> Result<Self> {
        let origins = config.fetch_allow.iter().map(|text| text.parse());
        let origins = origins.collect::<std::result::Result<Vec<_>, String>>();
        let origins = origins.map_err(|problem| Error::invalid("fetch.allow", problem))?;
        Ok(Self {
            key_file: config.key_file,
            fetcher: Fetcher::new(origins),
            slots: Semaphore::new(limits::BMC_IN_FLIGHT_MAX),
            busy: Mutex::default(),
        })
    }

    async fn perform(&self, command: Command, sealed: Vec<u8>) -> Reply {
        let turn = {
            let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, turn| Arc::strong_count(turn) > 1);
            busy.entry(command.context.clone()).or_default().clone()
        };
        let time_max = Duration::from_secs(u64::from(command.deadline_seconds));
        let work = async {
            let _turn = turn.lock().await;
            let _slot = self.slots.acquire().await;
            self.switch(&command, &sealed, time_max).await
        };
        let late =
            PowerFailure { code: "timed-out".into(), detail: "the command's time is over".into(), retryable: true };
        // A little longer than the driver's own deadline, which has the better words.
        let result = tokio::time::timeout(time_max + Duration::from_secs(5), work).await.unwrap_or(Err(late));
        Reply { number: command.number, result }
    }

    async fn switch(
        &self,
        command: &Command,
        sealed: &[u8],
        time_max: Duration,
    ) -> std::result::Result<PowerState, PowerFailure> {
        let mut parameters = self.open(command, sealed).map_err(|error| PowerFailure {
            code: "bad-parameters".into(),
            detail: error.to_string(),
            retryable: false,
        })?;
        let driver = bootstorm_power::driver(&command.driver, &parameters, &self.fetcher);
        parameters.values_mut().for_each(|value| value.zeroize());
        let driver = driver.map_err(|error| failure(&error))?;
        let action = match command.action {
            Action::On => bootstorm_power::Command::On,
            Action::Off => bootstorm_power::Command::Off,
            Action::Cycle => bootstorm_power::Command::Cycle,
            Action::Query => bootstorm_power::Command::Query,
        };
        let state = bootstorm_power::perform(&*driver, action, time_max).await.map_err(|error| failure(&error))?;
        Ok(match state {
            bootstorm_model::PowerState::On => PowerState::On,
            bootstorm_model::PowerState::Off => PowerState::Off,
            bootstorm_model::PowerState::Unknown | bootstorm_model::PowerState::Error => PowerState::Unknown,
        })
    }

    fn open(&self, command: &Command, sealed: &[u8]) -> Result<Parameters> {
        if sealed.is_empty() {
            return Ok(Parameters::new());
        }
        let plain = Sealer::load(&self.key_file)?.open(&command.context, sealed)?;
        serde_json::from_slice(&plain).map_err(|error| Error::invalid("power parameters", error))
    }
}

fn failure(error: &PowerError) -> PowerFailure {
    PowerFailure { code: error.code(), detail: error.to_string(), retryable: error.is_retryable() }
}

async fn serve(role: Arc<Role>, stream: UnixStream) {
    let (mut reader, mut writer) = stream.into_split();
    let (replies, mut replied) = mpsc::channel::<Reply>(limits::BMC_QUEUE_COMMANDS);
    let writing = tokio::spawn(async move {
        while let Some(reply) = replied.recv().await {
            if frames::write(&mut writer, &reply, &[]).await.is_err() {
                return;
            }
        }
    });
    let mut tasks = JoinSet::new();
    loop {
        match frames::read::<Command>(&mut reader).await {
            Ok(Some((command, sealed))) if sealed.len() <= limits::SEALED_BYTES_MAX => {
                while tasks.len() >= limits::BMC_QUEUE_COMMANDS {
                    let _ = tasks.join_next().await;
                }
                let (role, replies) = (role.clone(), replies.clone());
                tasks.spawn(async move {
                    let reply = role.perform(command, sealed).await;
                    let _ = replies.send(reply).await;
                });
            }
            Ok(Some(_)) => tracing::warn!("a power command with parameters above the limit is ignored"),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(%error, "the stream to control failed");
                break;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
    // A command that is under way ends by itself, so that a machine is not left half cycled; its reply goes nowhere.
    drop(replies);
    while tasks.join_next().await.is_some() {}
    writing.abort();
}
