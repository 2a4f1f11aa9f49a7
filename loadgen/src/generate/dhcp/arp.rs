//! Answers to "who has this leased address": a server that answers a renewal asks first (RFC 826).
//!
//! Octets of a request in a frame: Ethernet 14, hardware type 2, protocol 2, their lengths 2, operation 2, sender's MAC 6 and
//! address 4, target's MAC 6 and address 4. Whatever is no such frame is `None`.

use std::net::Ipv4Addr;

use bootstorm_proto::dhcp::MacAddress;

/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// Octets of a frame with a request or an answer.
const FRAME_BYTES: usize = 42;
/// Type ARP; hardware Ethernet, protocol IPv4, lengths 6 and 4, operation request.
const REQUEST: [u8; 10] = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whom it asks for.
    pub target: Ipv4Addr,
    sender_mac: MacAddress,
    sender: [u8; 4],
}

impl Question {
    /// Reads a frame.
    pub fn parse(frame: &[u8]) -> Option<Question> {
        let body = frame.get(..FRAME_BYTES)?;
        if body.get(12..22)? != REQUEST {
            return None;
        }
        Some(Question {
            target: Ipv4Addr::from(<[u8; 4]>::try_from(body.get(38..42)?).ok()?),
            sender_mac: body.get(22..28)?.try_into().ok()?,
            sender: body.get(28..32)?.try_into().ok()?,
        })
    }

    /// The frame that says that `mac` has the target.
    pub fn answer(&self, mac: MacAddress) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        frame[..6].copy_from_slice(&self.sender_mac);
        frame[6..12].copy_from_slice(&mac);
        frame[12..22].copy_from_slice(&REQUEST);
        frame[21] = 2;
        frame[22..28].copy_from_slice(&mac);
        frame[28..32].copy_from_slice(&self.target.octets());
        frame[32..38].copy_from_slice(&self.sender_mac);
        frame[38..42].copy_from_slice(&self.sender);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_and_nothing_else_is_one() {
        let mut frame = [0xff; FRAME_BYTES + 18];
        frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[12..22].copy_from_slice(&REQUEST);
        frame[22..28].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
        frame[28..32].copy_from_slice(&[10, 0, 0, 1]);
        frame[38..42].copy_from_slice(&[10, 0, 0, 9]);
        let question = Question::parse(&frame).unwrap();
        assert_eq!(question.target, Ipv4Addr::new(10, 0, 0, 9));
        let answer = question.answer([2; 6]);
        assert_eq!((&answer[..6], &answer[22..32]), (&[2, 0, 0, 0, 0, 1][..], &[2, 2, 2, 2, 2, 2, 10, 0, 0, 9][..]));
        assert_eq!(Question::parse(&answer), None);
        for length in 0..FRAME_BYTES {
            assert_eq!(Question::parse(&frame[..length]), None);
        }
    }
}
