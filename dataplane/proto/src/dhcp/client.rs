//! The client half: boot firmware that wants an address and a boot file, for the load generator and the simulator.
//!
//! [`Client`] goes Discover → (offers gathered for as long as its firmware waits) → Request → bound or failed, with the
//! options and the timers of the firmware chosen. It does not renew: firmware does not live that long.
//! Order of calls: [`Client::start`], then after every input `poll_output` until `None`.

use core::net::Ipv4Addr;
use core::time::Duration;

use super::options::{MessageType, code};
use super::wire::{Answer, ClientMessage, ProxyDhcpWait};
use super::{DropReason, MacAddress};
use crate::{Monotonic, limits};

/// How one kind of firmware speaks. Source of the constants: packets seen from these programs (see `tests/vectors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// A short stable name.
    pub name: &'static str,
    /// Option 60.
    pub vendor_class: Option<&'static str>,
    /// Option 93.
    pub architecture: Option<u16>,
    /// Whether option 93 is in the Discover too, or first in the Request.
    pub declares_at_discover: bool,
    /// Option 77, sent bare.
    pub user_class: Option<&'static str>,
    /// Option 94.
    pub network_interface: Option<[u8; 3]>,
    /// Whether option 97 is sent.
    pub sends_uuid: bool,
    /// Whether option 61 (type 1 and the hardware address) is sent.
    pub sends_client_identifier: bool,
    /// Option 175, encapsulated.
    pub ipxe_options: Option<&'static [u8]>,
    /// Option 55.
    pub parameter_request_list: &'static [u8],
    /// Option 57 in Discover and Request.
    pub message_bytes_max: Option<(u16, u16)>,
    /// Waits after each send of a message before the next; after the last one it gives up.
    pub retry_seconds: &'static [u64],
    /// How long offers are gathered; iPXE skips it when told to by option 175.
    pub offer_wait: Duration,
    /// The broadcast bit.
    pub broadcast: bool,
}

const EDK2_RETRIES: &[u64] = &[4, 8, 16, 32];
const PXE_LIST: &[u8] = &[
    1, 2, 3, 4, 5, 6, 12, 13, 15, 17, 18, 22, 23, 28, 40, 41, 42, 43, 50, 51, 54, 58, 59, 60, 66, 67, 97, 128, 129,
    130, 131, 132, 133, 134, 135,
];
const IPXE_LIST: &[u8] =
    &[1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 128, 129, 130, 131, 132, 133, 134, 135, 175, 203];
/// Features (version, HTTP, TFTP, ELF and so on), as iPXE lists them.
const IPXE_FEATURES: &[u8] = &[0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 23, 1, 1, 19, 1, 1, 17, 1, 1, 39, 1, 1];

impl Profile {
    /// iPXE as a BIOS option ROM.
    pub const IPXE_BIOS: Profile = Profile {
        name: "ipxe_bios",
        vendor_class: Some("PXEClient:Arch:00000:UNDI:002001"),
        architecture: Some(0),
        declares_at_discover: true,
        user_class: Some("iPXE"),
        network_interface: Some([1, 2, 1]),
        sends_uuid: true,
        sends_client_identifier: true,
        ipxe_options: Some(IPXE_FEATURES),
        parameter_request_list: IPXE_LIST,
        message_bytes_max: Some((1_472, 1_472)),
        retry_seconds: &[1, 2, 4, 8],
        offer_wait: Duration::from_secs(2),
        broadcast: false,
    };
    /// iPXE for UEFI on amd64.
    pub const IPXE_UEFI: Profile = Profile {
        name: "ipxe_uefi",
        vendor_class: Some("PXEClient:Arch:00007:UNDI:003010"),
        architecture: Some(7),
        network_interface: Some([1, 3, 10]),
        ..Profile::IPXE_BIOS
    };
    /// A PXE ROM under BIOS (constructed: none is to be had as a program).
    pub const PXE_BIOS: Profile = Profile {
        name: "pxe_bios",
        vendor_class: Some("PXEClient:Arch:00000:UNDI:002001"),
        architecture: Some(0),
        network_interface: Some([1, 2, 1]),
        broadcast: true,
        ..Profile::OVMF_PXE
    };
    /// EDK2's PXE client on amd64.
    pub const OVMF_PXE: Profile = Profile {
        name: "ovmf_pxe",
        vendor_class: Some("PXEClient:Arch:00007:UNDI:003000"),
        architecture: Some(7),
        declares_at_discover: true,
        user_class: None,
        network_interface: Some([1, 3, 0]),
        sends_uuid: true,
        sends_client_identifier: false,
        ipxe_options: None,
        parameter_request_list: PXE_LIST,
        message_bytes_max: Some((1_472, 65_280)),
        retry_seconds: EDK2_RETRIES,
        offer_wait: Duration::from_secs(4),
        broadcast: false,
    };
    /// EDK2's HTTP boot client on amd64.
    pub const OVMF_HTTP: Profile = Profile {
        name: "ovmf_http",
        vendor_class: Some("HTTPClient:Arch:00016:UNDI:003000"),
        architecture: Some(16),
        ..Profile::OVMF_PXE
    };
    /// EDK2's PXE client on arm64.
    pub const AAVMF_PXE: Profile = Profile {
        name: "aavmf_pxe",
        vendor_class: Some("PXEClient:Arch:00011:UNDI:003000"),
        architecture: Some(11),
        ..Profile::OVMF_PXE
    };
    /// SLOF on Power: says nothing of itself in its Discover.
    pub const SLOF: Profile = Profile {
        name: "slof",
        vendor_class: None,
        architecture: Some(12),
        declares_at_discover: false,
        network_interface: None,
        sends_uuid: false,
        parameter_request_list: &[1, 3, 6, 66, 67, 93],
        message_bytes_max: None,
        offer_wait: Duration::ZERO,
        ..Profile::OVMF_PXE
    };
    /// The network boot program of IBM Z.
    pub const S390_CCW: Profile = Profile { name: "s390_ccw", architecture: Some(31), ..Profile::SLOF };
    /// busybox' client: an operating system's.
    pub const UDHCPC: Profile = Profile {
        name: "udhcpc",
        vendor_class: Some("udhcp 1.35.0"),
        architecture: None,
        sends_client_identifier: true,
        parameter_request_list: &[1, 3, 6, 12, 15, 28, 42],
        message_bytes_max: Some((576, 576)),
        retry_seconds: &[3, 3, 3],
        ..Profile::SLOF
    };
    /// All profiles.
    pub const ALL: [Profile; 9] = [
        Profile::IPXE_BIOS,
        Profile::IPXE_UEFI,
        Profile::PXE_BIOS,
        Profile::OVMF_PXE,
        Profile::OVMF_HTTP,
        Profile::AAVMF_PXE,
        Profile::SLOF,
        Profile::S390_CCW,
        Profile::UDHCPC,
    ];
}

/// What the client does or has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<'a> {
    /// Broadcast this message from port 68 to port 67.
    Send(&'a [u8]),
    /// The client has an address and knows its boot file; said once.
    Bound(&'a Answer),
    /// The client gave up; said once.
    Failed(Failure),
}

/// Why a client gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No offer after all sends.
    NoOffer,
    /// No answer to the Request after all sends.
    NoAck,
    /// The Request was refused.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Selecting,
    Gathering,
    Requesting,
    Bound,
    Failed(Failure),
}

/// A client. See the module for its contract.
#[derive(Debug)]
pub struct Client {
    profile: Profile,
    mac: MacAddress,
    uuid: [u8; 16],
    transaction_id: u32,
    state: State,
    started: Monotonic,
    due: Monotonic,
    sends: usize,
    offer: Option<Answer>,
    answer: Option<Answer>,
    buffer: Vec<u8>,
    /// The message in `buffer`, or the end that was reached, is still to be told.
    untold: bool,
    offers_seen: u32,
}

impl Client {
    /// A client that has not begun. `transaction_id` is the caller's randomness; `uuid` are the octets of option 97.
    pub fn new(profile: Profile, mac: MacAddress, uuid: [u8; 16], transaction_id: u32) -> Client {
        Client {
            profile,
            mac,
            uuid,
            transaction_id,
            state: State::Idle,
            started: Monotonic::ZERO,
            due: Monotonic::ZERO,
            sends: 0,
            offer: None,
            answer: None,
            buffer: Vec::new(),
            untold: false,
            offers_seen: 0,
        }
    }

    /// Power on: the first Discover becomes an output.
    pub fn start(&mut self, now: Monotonic) {
        self.started = now;
        self.enter(now, State::Selecting);
    }

    /// The client's hardware address.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Offers that came, ours or others'.
    pub fn offers_seen(&self) -> u32 {
        self.offers_seen
    }

    /// Takes a datagram from port 67.
    ///
    /// # Errors
    /// A reason to count; the client is as before. Answers to other clients are [`DropReason::NotOurs`], answers that come
    /// too late are too.
    pub fn handle_datagram(&mut self, now: Monotonic, bytes: &[u8]) -> Result<(), DropReason> {
        let answer = Answer::parse(bytes)?;
        if answer.transaction_id != self.transaction_id || answer.client_hardware_address != self.mac {
            return Err(DropReason::NotOurs);
        }
        match (self.state, answer.message_type) {
            (State::Selecting | State::Gathering, MessageType::Offer) => self.handle_offer(now, answer),
            (State::Requesting, MessageType::Ack) => {
                if self.offer.as_ref().is_some_and(|offer| offer.your_ip != answer.your_ip) {
                    return Err(DropReason::Inconsistent);
                }
                self.answer = Some(answer);
                self.end(State::Bound);
                Ok(())
            }
            (State::Requesting, MessageType::Nak) => {
                self.end(State::Failed(Failure::Refused));
                Ok(())
            }
            _ => Err(DropReason::NotOurs),
        }
    }

    fn handle_offer(&mut self, now: Monotonic, offer: Answer) -> Result<(), DropReason> {
        if offer.your_ip.is_unspecified() || offer.server_identifier.is_none() {
            return Err(DropReason::Inconsistent);
        }
        self.offers_seen = self.offers_seen.saturating_add(1);
        if self.state == State::Gathering {
            return Ok(());
        }
        let told = self.profile.ipxe_options.is_some() && offer.proxy_dhcp_wait == ProxyDhcpWait::Skip;
        self.offer = Some(offer);
        if told || self.profile.offer_wait.is_zero() {
            self.enter(now, State::Requesting);
        } else {
            self.state = State::Gathering;
            self.untold = false;
            self.due = now + self.profile.offer_wait;
        }
        Ok(())
    }

    /// Looks at the timer.
    pub fn handle_timeout(&mut self, now: Monotonic) {
        if self.next_timeout().is_none_or(|due| now < due) {
            return;
        }
        match self.state {
            State::Gathering => self.enter(now, State::Requesting),
            State::Selecting | State::Requesting => self.send(now),
            State::Idle | State::Bound | State::Failed(_) => {}
        }
    }

    fn enter(&mut self, now: Monotonic, state: State) {
        self.state = state;
        self.sends = 0;
        self.send(now);
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.untold = true;
    }

    fn send(&mut self, now: Monotonic) {
        let requesting = self.state == State::Requesting;
        let wait = self.profile.retry_seconds.get(self.sends).filter(|_| self.sends < limits::DHCP_CLIENT_SENDS_MAX);
        let Some(wait) = wait else {
            self.end(State::Failed(if requesting { Failure::NoAck } else { Failure::NoOffer }));
            return;
        };
        self.sends += 1;
        self.due = now + Duration::from_secs(*wait);
        self.untold = true;
        self.write(now, if requesting { MessageType::Request } else { MessageType::Discover });
    }

    fn write(&mut self, now: Monotonic, message_type: MessageType) {
        let profile = &self.profile;
        let request = message_type == MessageType::Request;
        let [a, b, c, d, e, f] = self.mac;
        let identifier = [1, a, b, c, d, e, f];
        let mut machine = [0; 17];
        for (to, from) in machine.iter_mut().skip(1).zip(self.uuid) {
            *to = from;
        }
        let offered = self.offer.as_ref().map(|offer| offer.your_ip.octets()).unwrap_or_default();
        let server = self.offer.as_ref().and_then(|offer| offer.server_identifier).map(|server| server.octets());
        let bytes_max =
            profile.message_bytes_max.map(|(first, later)| if request { later } else { first }.to_be_bytes());
        let architecture = profile.architecture.map(u16::to_be_bytes);
        let architecture = architecture.filter(|_| request || profile.declares_at_discover);

        let mut options: Vec<(u8, &[u8])> = Vec::new();
        if let (true, Some(server)) = (request, &server) {
            options.push((code::REQUESTED_IP, &offered));
            options.push((code::SERVER_IDENTIFIER, server));
        }
        options.push((code::PARAMETER_REQUEST_LIST, profile.parameter_request_list));
        if let Some(bytes_max) = &bytes_max {
            options.push((code::MESSAGE_BYTES_MAX, bytes_max));
        }
        if let Some(class) = profile.vendor_class {
            options.push((code::VENDOR_CLASS, class.as_bytes()));
        }
        if profile.sends_client_identifier {
            options.push((code::CLIENT_IDENTIFIER, &identifier));
        }
        if let Some(class) = profile.user_class {
            options.push((code::USER_CLASS, class.as_bytes()));
        }
        if let Some(architecture) = &architecture {
            options.push((code::ARCHITECTURE, architecture));
        }
        if let Some(interface) = &profile.network_interface {
            options.push((code::NETWORK_INTERFACE, interface));
        }
        if profile.sends_uuid {
            options.push((code::MACHINE_IDENTIFIER, &machine));
        }
        if let Some(features) = profile.ipxe_options {
            options.push((code::IPXE, features));
        }
        let seconds = now.saturating_sub(self.started).as_secs();
        let message = ClientMessage {
            message_type,
            transaction_id: self.transaction_id,
            seconds: u16::try_from(seconds).unwrap_or(u16::MAX),
            broadcast: profile.broadcast,
            hops: 0,
            client_ip: Ipv4Addr::UNSPECIFIED,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            client_hardware_address: self.mac,
            options: &options,
        };
        self.buffer.resize(limits::DHCP_MESSAGE_BYTES_MAX, 0);
        // The options of every profile fit; a test writes them all.
        let length = message.encode(&mut self.buffer).unwrap_or(0);
        self.buffer.truncate(length);
    }

    /// The next thing to do or to know; `None` when there is nothing before the next input.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        if !core::mem::take(&mut self.untold) {
            return None;
        }
        match self.state {
            State::Selecting | State::Requesting => Some(Output::Send(&self.buffer)),
            State::Bound => self.answer.as_ref().map(Output::Bound),
            State::Failed(failure) => Some(Output::Failed(failure)),
            State::Idle | State::Gathering => None,
        }
    }

    /// When `handle_timeout` is due; `None` before the start and after the end.
    pub fn next_timeout(&self) -> Option<Monotonic> {
        match self.state {
            State::Selecting | State::Gathering | State::Requesting => Some(self.due),
            State::Idle | State::Bound | State::Failed(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client_kind::{BootClient, Firmware, classify};
    use super::super::options::Architecture;
    use super::super::wire::{BootFile, LeaseTimes, Reply, Request};
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const MAC: MacAddress = [2, 0, 0, 0, 0, 7];

    fn reply(message_type: MessageType, request: &Request, wait: ProxyDhcpWait) -> Vec<u8> {
        let mut buffer = [0; 1_472];
        let reply = Reply {
            your_ip: if message_type == MessageType::Nak { Ipv4Addr::UNSPECIFIED } else { ADDRESS },
            lease: Some(LeaseTimes::new(600)),
            boot_file: Some(BootFile { name: "boot.ipxe", server_name: None }),
            proxy_dhcp_wait: wait,
            ..Reply::new(message_type, SERVER)
        };
        let encoded = reply.encode(request, &mut buffer).unwrap();
        buffer[..encoded.bytes].to_vec()
    }

    fn sent(client: &mut Client) -> Request {
        match client.poll_output() {
            Some(Output::Send(bytes)) => Request::parse(bytes).unwrap(),
            other => panic!("nothing sent but {other:?}"),
        }
    }

    #[test]
    fn every_profile_gets_bound_and_is_what_it_says() {
        use Architecture as A;
        use Firmware as F;
        let expected = [
            (F::IpxeBios, A::X86Bios),
            (F::IpxeUefi, A::Amd64),
            (F::PxeBios, A::X86Bios),
            (F::PxeUefi, A::Amd64),
            (F::HttpBoot, A::Amd64),
            (F::PxeUefi, A::Arm64),
            (F::OpenFirmware, A::Ppc64),
            (F::S390, A::S390x),
            (F::None, A::Unknown),
        ];
        for (profile, (firmware, architecture)) in Profile::ALL.into_iter().zip(expected) {
            let mut client = Client::new(profile, MAC, [9; 16], 5);
            assert_eq!(client.next_timeout(), None);
            client.start(Monotonic::ZERO);
            let discover = sent(&mut client);
            assert_eq!(discover.message_type, MessageType::Discover);
            client
                .handle_datagram(Monotonic::ZERO, &reply(MessageType::Offer, &discover, ProxyDhcpWait::Unsaid))
                .unwrap();
            if !profile.offer_wait.is_zero() {
                assert_eq!(client.poll_output(), None);
                assert_eq!(client.next_timeout(), Some(profile.offer_wait));
                client.handle_timeout(profile.offer_wait);
            }
            let request = sent(&mut client);
            assert_eq!(classify(&request), BootClient { firmware, architecture }, "{}", profile.name);
            assert_eq!((request.requested_ip, request.server_identifier), (Some(ADDRESS), Some(SERVER)));
            let later = Monotonic::from_secs(9);
            client.handle_datagram(later, &reply(MessageType::Ack, &request, ProxyDhcpWait::Unsaid)).unwrap();
            let Some(Output::Bound(answer)) = client.poll_output() else { panic!("{} is not bound", profile.name) };
            assert_eq!((answer.your_ip, answer.boot_file.as_deref()), (ADDRESS, Some("boot.ipxe")));
            assert_eq!(client.poll_output(), None);
            assert_eq!(client.next_timeout(), None);
        }
    }

    #[test]
    fn ipxe_does_not_wait_when_told() {
        let mut client = Client::new(Profile::IPXE_BIOS, MAC, [9; 16], 5);
        client.start(Monotonic::ZERO);
        let discover = sent(&mut client);
        client.handle_datagram(Monotonic::ZERO, &reply(MessageType::Offer, &discover, ProxyDhcpWait::Skip)).unwrap();
        assert_eq!(sent(&mut client).message_type, MessageType::Request);
    }

    #[test]
    fn firmware_retries_and_gives_up() {
        let mut client = Client::new(Profile::OVMF_PXE, MAC, [9; 16], 5);
        client.start(Monotonic::ZERO);
        let mut times = Vec::new();
        let failure = loop {
            match client.poll_output() {
                Some(Output::Send(bytes)) => times.push(u64::from(Request::parse(bytes).unwrap().seconds)),
                Some(Output::Failed(failure)) => break failure,
                Some(Output::Bound(_)) => panic!("bound by nobody"),
                None => {
                    let due = client.next_timeout().unwrap();
                    client.handle_timeout(due);
                }
            }
        };
        assert_eq!((times, failure), (vec![0, 4, 12, 28], Failure::NoOffer));
    }

    #[test]
    fn others_answers_and_refusals() {
        let mut client = Client::new(Profile::UDHCPC, MAC, [9; 16], 5);
        client.start(Monotonic::ZERO);
        let discover = sent(&mut client);
        let other = Request { transaction_id: 6, ..discover.clone() };
        let offer = |request: &Request| reply(MessageType::Offer, request, ProxyDhcpWait::Unsaid);
        assert_eq!(client.handle_datagram(Monotonic::ZERO, &offer(&other)), Err(DropReason::NotOurs));
        client.handle_datagram(Monotonic::ZERO, &offer(&discover)).unwrap();
        let request = sent(&mut client);
        client.handle_datagram(Monotonic::ZERO, &reply(MessageType::Nak, &request, ProxyDhcpWait::Unsaid)).unwrap();
        assert_eq!(client.poll_output(), Some(Output::Failed(Failure::Refused)));
    }
}
