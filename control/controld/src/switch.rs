//! Control's end of the stream to the bmc role: commands out, replies back, each with its number.

use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdStream;

use bootstorm_api::bmc::{Action, Command, PowerFailure, PowerState, Reply};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::{bmc, frames, limits};

type Outcome = std::result::Result<PowerState, PowerFailure>;

struct Order {
    command: Command,
    sealed: Vec<u8>,
    reply: oneshot::Sender<Outcome>,
}

/// Sends power commands. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Switch {
    orders: mpsc::Sender<Order>,
}

/// What [`Switch::new`] leaves to be run.
pub(crate) struct Relay {
    orders: mpsc::Receiver<Order>,
    streams: mpsc::Receiver<StdStream>,
}

impl Switch {
    /// A switch, and the relay that carries its commands over whichever stream came last.
    pub(crate) fn new(streams: mpsc::Receiver<StdStream>) -> (Self, Relay) {
        let (orders, received) = mpsc::channel(limits::BMC_QUEUE_COMMANDS);
        (Self { orders }, Relay { orders: received, streams })
    }

    /// Performs one command; `sealed` are the parameters under `context`.
    pub(crate) async fn perform(
        &self,
        driver: &str,
        context: String,
        action: Action,
        sealed: Vec<u8>,
    ) -> Result<PowerState> {
        let (reply, replied) = oneshot::channel();
        let deadline_seconds = limits::POWER_SECONDS_MAX;
        let command = Command { number: 0, driver: driver.to_string(), context, action, deadline_seconds };
        self.orders.send(Order { command, sealed, reply }).await.map_err(|_| Error::Power(away()))?;
        replied.await.unwrap_or_else(|_| Err(away())).map_err(Error::Power)
    }
}

fn away() -> PowerFailure {
    PowerFailure {
        code: "bmc-role-away".into(),
        detail: "the bmc role is not running; it is started again by itself".into(),
        retryable: true,
    }
}

impl Relay {
    /// Runs until both ends are gone. Commands without a stream fail at once; those under way when it ends fail then.
    pub(crate) async fn run(mut self) {
        let mut writer: Option<OwnedWriteHalf> = None;
        let mut waiting: HashMap<u64, oneshot::Sender<Outcome>> = HashMap::new();
        let (replies, mut replied) = mpsc::channel::<(u64, Option<Reply>)>(limits::BMC_QUEUE_COMMANDS);
        let (mut number, mut generation, mut open) = (0u64, 0u64, true);
        loop {
            tokio::select! {
                stream = self.streams.recv(), if open => {
                    let Some(stream) = stream else { open = false; continue };
                    let Ok(stream) = bmc::to_tokio(stream) else { continue };
                    let (mut reader, half) = stream.into_split();
                    generation += 1;
                    waiting.clear();
                    writer = Some(half);
                    let (replies, mine) = (replies.clone(), generation);
                    tokio::spawn(async move {
                        while let Ok(Some((reply, _))) = frames::read::<Reply>(&mut reader).await {
                            if replies.send((mine, Some(reply))).await.is_err() {
                                return;
                            }
                        }
                        let _ = replies.send((mine, None)).await;
                    });
                }
                Some((from, reply)) = replied.recv() => match reply {
                    Some(reply) => {
                        if let Some(sender) = waiting.remove(&reply.number) {
                            let _ = sender.send(reply.result);
                        }
                    }
                    None if from == generation => {
                        waiting.clear();
                        writer = None;
                    }
                    None => {}
                },
                order = self.orders.recv() => {
                    let Some(mut order) = order else { return };
                    number += 1;
                    order.command.number = number;
                    let Some(half) = writer.as_mut() else { continue };
                    if frames::write(half, &order.command, &order.sealed).await.is_ok() {
                        waiting.insert(number, order.reply);
                    } else {
                        waiting.clear();
                        writer = None;
                    }
                }
            }
        }
    }
}
