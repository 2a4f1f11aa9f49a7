//! The sender on our driver.

use std::collections::HashMap;
use std::net::TcpListener;

use bootstorm_driver::{Config, ConnectionId, Driver, Event, More, Operation, Parts, Repeat};

use crate::{Answer, Content};

const ACCEPT: u64 = 0;

/// A connection, what has come of its request, and how many quanta are still to be sent.
struct Connection {
    id: ConnectionId,
    request: Vec<u8>,
    quanta: u64,
}

/// Serves for ever.
pub fn serve(listener: TcpListener, content: &Content) -> Result<(), Box<dyn std::error::Error>> {
    let mut driver = Driver::new(&Config { choice: bootstorm_driver::Choice::Uring, ..Config::default() })?;
    let listener = driver.add_listener(listener.into())?;
    driver.submit(ACCEPT, Operation::Accept { listener }).map_err(|refused| refused.reason)?;
    // Tokens of receives are odd, of sends even; zero is the listener's.
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut next = 1;
    let mut completions = Vec::new();
    loop {
        driver.wait(None, &mut completions)?;
        for completion in completions.drain(..) {
            let number = completion.token / 2;
            match completion.event {
                Event::Accepted(id) => {
                    connections.insert(next, Connection { id, request: Vec::new(), quanta: 0 });
                    let receive = Operation::Receive { connection: id, repeat: Repeat::Continuous };
                    driver.submit(2 * next + 1, receive).map_err(|refused| refused.reason)?;
                    next += 1;
                }
                Event::Bytes(bytes) => {
                    let Some(connection) = connections.get_mut(&number) else { continue };
                    // Most often it is whole at once.
                    let answer = if connection.request.is_empty() { content.answer(&bytes) } else { None };
                    let answer = answer.or_else(|| {
                        connection.request.extend_from_slice(&bytes);
                        content.answer(&connection.request)
                    });
                    let Some(Answer { head, quanta }) = answer else { continue };
                    connection.request.clear();
                    connection.quanta = quanta;
                    send(&mut driver, number, connection.id, head.into(), quanta > 0)?;
                }
                Event::Sent(_) => {
                    let Some(connection) = connections.get_mut(&number) else { continue };
                    if connection.quanta > 0 {
                        connection.quanta -= 1;
                        send(&mut driver, number, connection.id, content.quantum().into(), connection.quanta > 0)?;
                    }
                }
                Event::EndOfStream | Event::Failed(_) => {
                    if let Some(connection) = connections.remove(&number) {
                        driver.close(connection.id);
                    }
                }
                Event::Cancelled | Event::Woken => {}
                Event::Datagram(_) | Event::Connected(_) | Event::Discarded(_) | Event::Read(_) => {
                    return Err("a completion of what was not asked for".into());
                }
            }
        }
    }
}

fn send(
    driver: &mut Driver,
    number: u64,
    connection: ConnectionId,
    parts: Parts,
    follows: bool,
) -> Result<(), Box<dyn std::error::Error>> {
    let more = if follows { More::Follows } else { More::Done };
    driver.submit(2 * number, Operation::Send { connection, parts, more }).map_err(|refused| refused.reason)?;
    Ok(())
}
