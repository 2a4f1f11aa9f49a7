//! Renewal of the boot interface's DHCP lease, which outlives neither a long download nor a long wait by itself.
//!
//! The agent is in the state RENEWING of RFC 2131 §4.3.2 all the time: it sends a Request with `ciaddr` set straight to
//! the rack that leased the address, and takes the new duration from the Ack. A refusal is told to the log only: with
//! the address gone, the next connection fails and the machine is started anew.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bootstorm_snapshot::Mac;

use crate::command_line::CommandLine;
use crate::retry;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// Bytes of the smallest message that old relays pass on (RFC 1542 §2.1).
const MESSAGE_BYTES_MIN: usize = 300;

/// What a server said to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease goes on for this long.
    Extended(Duration),
    /// The address is no longer this machine's.
    Refused,
}

/// Renews for ever: at once, to learn how long leases are, and then at half of each.
pub async fn run_renewal(command_line: CommandLine) {
    loop {
        let pause = match renew(&command_line).await {
            Ok(Some(Renewal::Extended(lease))) => (lease / 2).max(Duration::from_secs(15)),
            Ok(Some(Renewal::Refused)) => {
                crate::log!("the rack does not renew the lease of {}", command_line.address);
                Duration::from_secs(60)
            }
            Ok(None) => Duration::from_secs(10),
            Err(error) => {
                crate::log!("lease of {}: {error}", command_line.address);
                Duration::from_secs(30)
            }
        };
        let jitter = Duration::from_millis(retry::random() % 1000);
        tokio::time::sleep(pause + jitter).await;
    }
}

async fn renew(command_line: &CommandLine) -> std::io::Result<Option<Renewal>> {
    // Not bound to the address: some servers broadcast their answers all the same.
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).await?;
    let transaction_id = (retry::random() as u32).to_be_bytes();
    let server = SocketAddr::new(command_line.http.ip(), SERVER_PORT);
    socket.send_to(&request(transaction_id, command_line.mac, command_line.address), server).await?;
    let mut buffer = [0u8; 1500];
    let deadline = tokio::time::Instant::now() + Duration::from_secs(4);
    while let Ok(received) = tokio::time::timeout_at(deadline, socket.recv_from(&mut buffer)).await {
        let (length, from) = received?;
        let answer = buffer.get(..length).and_then(|m| read(m, transaction_id, command_line.mac, command_line.address));
        if from == server && answer.is_some() {
            return Ok(answer);
        }
    }
    Ok(None)
}

/// A Request in the state RENEWING (RFC 2131 §4.3.2, table 4): `ciaddr` set, neither server identifier nor requested address.
fn request(transaction_id: [u8; 4], mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0];
    message.extend_from_slice(&transaction_id);
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&address.octets());
    message.extend_from_slice(&[0; 12]);
    message.extend_from_slice(&mac.0);
    message.resize(236, 0);
    message.extend_from_slice(&COOKIE);
    message.extend_from_slice(&[53, 1, 3]);
    // The identifier that boot loaders use, so that the server finds the same lease (RFC 2132 §9.14).
    message.extend_from_slice(&[61, 7, 1]);
    message.extend_from_slice(&mac.0);
    message.extend_from_slice(&[55, 1, 51, 255]);
    message.resize(message.len().max(MESSAGE_BYTES_MIN), 0);
    message
}

/// What an answer says; nothing if it is not one to our request, or is malformed.
fn read(message: &[u8], transaction_id: [u8; 4], mac: Mac, address: Ipv4Addr) -> Option<Renewal> {
    let field = |from: usize, length: usize| message.get(from..from.checked_add(length)?);
    let for_us = field(0, 3)? == [2, 1, 6] && field(4, 4)? == transaction_id && field(28, 6)? == mac.0;
    if !for_us || field(236, 4)? != COOKIE {
        return None;
    }
    let (mut kind, mut seconds) = (None, None);
    let mut rest = message.get(240..)?;
    while let [code, after @ ..] = rest {
        rest = match code {
            0 => after,
            255 => break,
            _ => {
                let (length, after) = after.split_first()?;
                let (value, after) = after.split_at_checked(usize::from(*length))?;
                match code {
                    53 => kind = Some(<[u8; 1]>::try_from(value).ok()?[0]),
                    51 => seconds = Some(u32::from_be_bytes(value.try_into().ok()?)),
                    _ => {}
                }
                after
            }
        };
    }
    match kind? {
        5 if field(16, 4)? == address.octets() => Some(Renewal::Extended(Duration::from_secs(u64::from(seconds?)))),
        6 => Some(Renewal::Refused),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0, 0, 1]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn ack(kind: u8) -> Vec<u8> {
        let mut message = request([1, 2, 3, 4], MAC, ADDRESS);
        message.truncate(240);
        message[0] = 2;
        message[16..20].copy_from_slice(&ADDRESS.octets());
        message.extend_from_slice(&[0, 53, 1, kind, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 2, 88, 255]);
        message
    }

    #[test]
    fn a_request_is_that_of_the_state_renewing() {
        let message = request([1, 2, 3, 4], MAC, ADDRESS);
        assert_eq!(message.len(), MESSAGE_BYTES_MIN);
        assert_eq!(&message[..8], [1, 1, 6, 0, 1, 2, 3, 4]);
        assert_eq!(&message[12..16], ADDRESS.octets());
        assert_eq!(&message[28..34], MAC.0);
        assert_eq!(&message[236..243], [99, 130, 83, 99, 53, 1, 3]);
    }

    #[test]
    fn answers_are_read_and_others_are_not() {
        assert_eq!(read(&ack(5), [1, 2, 3, 4], MAC, ADDRESS), Some(Renewal::Extended(Duration::from_secs(600))));
        assert_eq!(read(&ack(6), [1, 2, 3, 4], MAC, ADDRESS), Some(Renewal::Refused));
        assert_eq!(read(&ack(2), [1, 2, 3, 4], MAC, ADDRESS), None);
        assert_eq!(read(&ack(5), [1, 2, 3, 5], MAC, ADDRESS), None);
        assert_eq!(read(&ack(5), [1, 2, 3, 4], MAC, Ipv4Addr::new(10, 0, 0, 8)), None);
    }

    #[test]
    fn no_truncation_or_changed_byte_panics() {
        let good = ack(5);
        for end in 0..good.len() {
            let _ = read(&good[..end], [1, 2, 3, 4], MAC, ADDRESS);
        }
        for i in 0..good.len() {
            for value in [0, 1, 127, 254, 255] {
                let mut changed = good.clone();
                changed[i] = value;
                let _ = read(&changed, [1, 2, 3, 4], MAC, ADDRESS);
            }
        }
    }
}
