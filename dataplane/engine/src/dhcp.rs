//! DHCPv4: which address, which boot file. Messages come from `proto`, the table is `leases`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bootstorm_proto::dhcp::DropReason;
use bootstorm_proto::dhcp::client_kind::{BootClient, Firmware, classify};
use bootstorm_proto::dhcp::options::{Architecture as Said, MessageType};
use bootstorm_proto::dhcp::server::{Delivery, Intent, destination, intent};
use bootstorm_proto::dhcp::wire::{BootFile, LeaseTimes, ProxyDhcpWait, PxeDiscovery, Reply, Request, is_host_name};
use bootstorm_proto::limits::DHCP_MESSAGE_BYTES_MAX;
use bootstorm_snapshot::record::{Answer, Subnet, Unknown};
use bootstorm_snapshot::{Architecture, Mac, Observed, Stage};

use crate::attempts::Who;
use crate::engine::{Engine, Interface, Output};
use crate::index::Index;
use crate::leases::{Asker, Lease, NoAddress};
use crate::record::Record;
use crate::spool::Worth;
use crate::{Time, limits};

/// One request with everything that was found out about it.
struct Context {
    request: Request,
    client: BootClient,
    mac: Mac,
    interface: Interface,
    subnet: Subnet,
    /// Fixed address in the subnet.
    fixed: Option<Ipv4Addr>,
    hostname: Option<String>,
    known: bool,
    circuit: Option<u64>,
}

impl Engine {
    /// Takes a datagram that came to port 67 of an interface.
    pub fn handle_dhcp(&mut self, now: Time, interface: u32, from: IpAddr, delivery: Delivery, bytes: &[u8]) {
        match self.answer_dhcp(now, interface, from, delivery, bytes) {
            Ok(()) => {}
            Err(reason) => self.counters.add("dhcp_dropped", reason),
        }
        self.finish();
    }

    fn answer_dhcp(
        &mut self,
        now: Time,
        interface: u32,
        from: IpAddr,
        delivery: Delivery,
        bytes: &[u8],
    ) -> Result<(), &'static str> {
        let interface = self.interface(interface).ok_or("interface")?.clone();
        if self.config.interfaces.iter().any(|ours| IpAddr::V4(ours.address) == from) {
            return Err(DropReason::FromOwnAddress.name());
        }
        let request = Request::parse(bytes).map_err(DropReason::name)?;
        let intent = intent(&request, delivery).map_err(DropReason::name)?;
        let context = self.context(request, interface)?;
        match intent {
            Intent::Discover { requested } => self.discover(now, &context, requested),
            Intent::Select { server, requested } => self.select(now, &context, server, requested),
            Intent::Reboot { requested } => self.reboot(now, &context, requested),
            Intent::Renew { client_ip } => self.renew(now, &context, client_ip, Silence::Never),
            Intent::Rebind { client_ip } => self.renew(now, &context, client_ip, Silence::WhereUnknown),
            Intent::Decline { server, address } => self.decline(now, &context, server, address),
            Intent::Release { server, client_ip } => self.release(now, &context, server, client_ip),
            Intent::Inform { client_ip } => self.inform(&context, client_ip),
        }
    }

    /// Finds subnet, fixed address and owner.
    fn context(&self, request: Request, interface: Interface) -> Result<Context, &'static str> {
        let mac = Mac(request.client_hardware_address);
        let relay = request.relay_agent_ip;
        let subnet = if relay.is_unspecified() {
            self.index.subnet_of(interface.address).ok_or("no_subnet")?
        } else {
            self.index.subnet_of(relay).ok_or(DropReason::UnknownRelay.name())?
        };
        let reservation = self.index.reservation(mac, subnet.id);
        let machine = self.index.machine(mac);
        let known = machine.is_some() || reservation.is_some();
        let unknown = self.view().site.as_ref().map(|site| site.unknown).ok_or("no_snapshot")?;
        if !known && unknown == Unknown::Ignore {
            return Err("unknown_ignored");
        }
        let hostname = reservation.and_then(|reservation| reservation.hostname.clone());
        let hostname = hostname.or_else(|| Some(self.index.boot(machine?)?.hostname.clone()));
        Ok(Context {
            client: classify(&request),
            mac,
            subnet: subnet.clone(),
            fixed: reservation.map(|reservation| reservation.address),
            hostname: hostname.filter(|name| is_host_name(name)),
            known,
            circuit: (!known).then(|| circuit(&request)).flatten(),
            request,
            interface,
        })
    }

    fn discover(&mut self, now: Time, context: &Context, wish: Option<Ipv4Addr>) -> Result<(), &'static str> {
        let address = match context.fixed {
            Some(address) => address,
            None => self.choose(now, context, wish)?,
        };
        self.counters.add("dhcp", "offer");
        let output = self.grant(context, MessageType::Offer, address)?;
        self.emit(output);
        Ok(())
    }

    fn choose(&mut self, now: Time, context: &Context, wish: Option<Ipv4Addr>) -> Result<Ipv4Addr, &'static str> {
        let index = Arc::clone(&self.index);
        let own: Vec<Ipv4Addr> = self.config.interfaces.iter().map(|interface| interface.address).collect();
        let subnet = &context.subnet;
        let taken = |address: Ipv4Addr| {
            index.is_reserved(address)
                || own.contains(&address)
                || subnet.gateway == Some(address)
                || subnet.dns_servers.contains(&address)
                || address == subnet.cidr.network()
                || address == subnet.cidr.broadcast()
        };
        let asker = Asker { mac: context.mac, circuit: context.circuit, wish };
        self.leases.choose(now.monotonic, subnet, asker, taken).map_err(|reason| match reason {
            NoAddress::Exhausted => "range_exhausted",
            NoAddress::TableFull => "offers_full",
            NoAddress::Quota => "circuit_quota",
        })
    }

    fn select(
        &mut self,
        now: Time,
        context: &Context,
        server: Ipv4Addr,
        requested: Ipv4Addr,
    ) -> Result<(), &'static str> {
        if server != context.interface.address {
            // The client took another server's offer: ours is free again.
            self.leases.withdraw(context.subnet.id, context.mac);
            return Err(DropReason::WrongServer.name());
        }
        let lease = self.leases.of_client(context.subnet.id, context.mac).map(|lease| lease.address);
        let ours = match context.fixed {
            Some(address) => requested == address,
            None => {
                let offered = self.leases.offer_of(context.subnet.id, context.mac);
                [offered, lease].contains(&Some(requested)) && self.is_free_for(context, requested)
            }
        };
        if ours { self.acknowledge(now, context, requested) } else { self.refuse(context, "not offered") }
    }

    fn reboot(&mut self, now: Time, context: &Context, requested: Ipv4Addr) -> Result<(), &'static str> {
        if !context.subnet.cidr.contains(requested) {
            return self.refuse(context, "wrong network");
        }
        match self.rightful(context) {
            Some(address) if address == requested && self.is_free_for(context, requested) => {
                self.acknowledge(now, context, requested)
            }
            Some(_) => self.refuse(context, "another address is yours"),
            // RFC 2131 §4.3.2: a server without a record of the client stays silent.
            None => Err("unknown_reboot"),
        }
    }

    fn renew(
        &mut self,
        now: Time,
        context: &Context,
        client_ip: Ipv4Addr,
        silence: Silence,
    ) -> Result<(), &'static str> {
        match self.rightful(context) {
            Some(address) if address == client_ip && self.is_free_for(context, client_ip) => {
                self.acknowledge(now, context, client_ip)
            }
            Some(_) => self.refuse(context, "not your address"),
            None if silence == Silence::WhereUnknown && context.subnet.cidr.contains(client_ip) => {
                Err("unknown_rebind")
            }
            None => self.refuse(context, "no lease"),
        }
    }

    /// The address that a client has a right to: its fixed one, or that of its lease.
    fn rightful(&self, context: &Context) -> Option<Ipv4Addr> {
        let lease = || self.leases.of_client(context.subnet.id, context.mac).map(|lease| lease.address);
        context.fixed.or_else(lease)
    }

    /// Whether nobody else has come to have the address meanwhile (a new reservation, another's lease after ours ended).
    fn is_free_for(&self, context: &Context, address: Ipv4Addr) -> bool {
        if context.fixed == Some(address) {
            return true;
        }
        !self.index.is_reserved(address)
            && self.leases.holder(address).is_none_or(|lease| lease.mac == context.mac)
            && context.subnet.dynamic.iter().any(|range| range.contains(address))
    }

    fn acknowledge(&mut self, now: Time, context: &Context, address: Ipv4Addr) -> Result<(), &'static str> {
        if !self.may_commit() {
            return Err("journal_busy");
        }
        let times = self.lease_times(context).ok_or("no_snapshot")?;
        let until_unix_seconds = now.unix_seconds() + u64::from(times.lease_seconds);
        let before = self.leases.holder(address).map(|lease| lease.mac);
        let lease = Lease {
            mac: context.mac,
            address,
            subnet: context.subnet.id,
            until_unix_seconds,
            ended: false,
            architecture: architecture(context.client.architecture)
                .or_else(|| self.leases.of_client(context.subnet.id, context.mac)?.architecture),
            circuit: context.circuit,
        };
        for displaced in self.leases.put(lease.clone()) {
            if displaced.address != address {
                self.journal(Record::LeaseForgotten { address: displaced.address });
            }
            if !displaced.ended {
                let ended = Observed::LeaseEnded { mac: displaced.mac, address: displaced.address };
                self.observe(now, Worth::Minor, ended);
            }
        }
        self.journal(Record::Lease(lease));
        if before != Some(context.mac) {
            let (mac, subnet) = (context.mac, context.subnet.id);
            self.observe(now, Worth::Minor, Observed::Lease { mac, address, subnet, until_unix_seconds });
        }
        self.trace_dhcp(now, context, address);
        self.counters.add("dhcp", "ack");
        let output = self.grant(context, MessageType::Ack, address)?;
        self.promise(output);
        Ok(())
    }

    /// The stage *dhcp* of a machine that is to boot the agent.
    fn trace_dhcp(&mut self, now: Time, context: &Context, address: Ipv4Addr) {
        if !context.client.is_boot_firmware() {
            return;
        }
        let Some(machine) = self.index.machine(context.mac) else { return };
        let Some(Answer::Agent { operation, attempt }) = self.index.boot(machine).map(|boot| boot.answer) else {
            return;
        };
        let who = Who::Machine { machine };
        self.enter_operation(now, machine, operation);
        let subject = self.attempts.get(who).and_then(|state| state.booting_subject(Some(attempt)));
        if let Some(subject) = subject {
            let detail = format!("{address} {}", context.client.firmware.name());
            self.observe_stage(now, who, subject, Stage::Dhcp, detail);
        }
    }

    fn refuse(&mut self, context: &Context, why: &'static str) -> Result<(), &'static str> {
        self.counters.add("dhcp", "nak");
        let mut reply = Reply::new(MessageType::Nak, context.interface.address);
        reply.message = Some(why);
        let output = encode(context, &reply)?;
        self.emit(output);
        Ok(())
    }

    fn decline(
        &mut self,
        now: Time,
        context: &Context,
        server: Ipv4Addr,
        address: Ipv4Addr,
    ) -> Result<(), &'static str> {
        if server != context.interface.address {
            return Err(DropReason::WrongServer.name());
        }
        if self.rightful(context) != Some(address) {
            return Err("decline_not_held");
        }
        if !self.may_commit() {
            return Err("journal_busy");
        }
        self.counters.add("dhcp", "decline");
        let detail = format!("{} says that {address} is in use by somebody else", context.mac);
        let alarm = Observed::Alarm { code: "address-in-use".into(), subject: None, detail };
        self.observe(now, Worth::Minor, alarm);
        if context.fixed != Some(address) {
            let until_unix_seconds = now.unix_seconds() + limits::QUARANTINE_SECONDS;
            if self.leases.quarantine(address, until_unix_seconds) {
                self.journal(Record::Quarantine { address, until_unix_seconds });
            }
        }
        self.end_lease(now, address);
        if self.leases.remove(address).is_some() {
            self.journal(Record::LeaseForgotten { address });
        }
        Ok(())
    }

    fn release(
        &mut self,
        now: Time,
        context: &Context,
        server: Option<Ipv4Addr>,
        client_ip: Ipv4Addr,
    ) -> Result<(), &'static str> {
        if server.is_some_and(|server| server != context.interface.address) {
            return Err(DropReason::WrongServer.name());
        }
        if self.leases.holder(client_ip).is_none_or(|lease| lease.mac != context.mac) {
            return Err("release_not_held");
        }
        if !self.may_commit() {
            return Err("journal_busy");
        }
        self.counters.add("dhcp", "release");
        self.end_lease(now, client_ip);
        Ok(())
    }

    /// Ends a lease and tells control; its client may come back to it.
    pub(crate) fn end_lease(&mut self, now: Time, address: Ipv4Addr) {
        if let Some(lease) = self.leases.end(address) {
            let ended = Observed::LeaseEnded { mac: lease.mac, address };
            self.journal(Record::Lease(lease));
            self.observe(now, Worth::Minor, ended);
        }
    }

    fn inform(&mut self, context: &Context, client_ip: Ipv4Addr) -> Result<(), &'static str> {
        if !context.subnet.cidr.contains(client_ip) {
            return Err("inform_wrong_network");
        }
        self.counters.add("dhcp", "inform");
        let mut reply = Reply::new(MessageType::Ack, context.interface.address);
        fill_network(&mut reply, context);
        let output = encode(context, &reply)?;
        self.emit(output);
        Ok(())
    }

    fn lease_times(&self, context: &Context) -> Option<LeaseTimes> {
        let site = self.view().site.as_ref()?;
        let booting = !context.known || context.client.is_boot_firmware();
        let seconds = if booting { site.boot_lease_seconds } else { site.lease_seconds };
        Some(LeaseTimes::new(seconds.max(60)))
    }

    /// An Offer or Ack with everything in it.
    fn grant(&self, context: &Context, kind: MessageType, address: Ipv4Addr) -> Result<Output, &'static str> {
        let mut reply = Reply::new(kind, context.interface.address);
        reply.your_ip = address;
        reply.lease = Some(self.lease_times(context).ok_or("no_snapshot")?);
        fill_network(&mut reply, context);
        let file =
            boot_file(&self.index, context.client, context.mac, context.interface.address, self.config.http_port);
        let server = context.interface.address.to_string();
        if let Some(file) = &file {
            let is_url = file.starts_with("http://");
            reply.next_server_ip = context.interface.address;
            reply.boot_file = Some(BootFile { name: file, server_name: (!is_url).then_some(server.as_str()) });
            reply.vendor_class = context.client.vendor_class_echo();
            if matches!(context.client.firmware, Firmware::PxeBios | Firmware::PxeUefi) {
                reply.pxe_discovery = PxeDiscovery::UseBootFile;
            }
        }
        if context.client.is_ipxe() {
            reply.proxy_dhcp_wait = ProxyDhcpWait::Skip;
        }
        encode(context, &reply)
    }
}

/// Whether a server without a record of the client may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    Never,
    WhereUnknown,
}

fn encode(context: &Context, reply: &Reply<'_>) -> Result<Output, &'static str> {
    let mut bytes = vec![0; DHCP_MESSAGE_BYTES_MAX];
    let encoded = reply.encode(&context.request, &mut bytes).map_err(|_| "reply_too_long")?;
    bytes.truncate(encoded.bytes);
    let to = destination(&context.request, reply.message_type, reply.your_ip);
    Ok(Output::Dhcp { interface: context.interface.index, to, bytes })
}

fn fill_network<'a>(reply: &mut Reply<'a>, context: &'a Context) {
    let subnet = &context.subnet;
    reply.subnet_mask = Some(subnet.cidr.mask());
    reply.routers = subnet.gateway.as_slice();
    reply.domain_name_servers = &subnet.dns_servers;
    reply.ntp_servers = &subnet.ntp_servers;
    reply.domain_name = subnet.domain.as_deref().filter(|name| is_host_name(name));
    reply.mtu = subnet.mtu;
    reply.broadcast_address = Some(subnet.cidr.broadcast());
    reply.host_name = context.hostname.as_deref();
}

/// The file a boot client is to load: iPXE a script, HTTP boot the URL of iPXE, others iPXE by TFTP; only what the boot
/// environment has, and nothing to operating systems.
pub(crate) fn boot_file(index: &Index, client: BootClient, mac: Mac, rack: Ipv4Addr, http_port: u16) -> Option<String> {
    let url = |path: &str| format!("http://{rack}:{http_port}/{path}");
    let loader = match (client.firmware, client.architecture) {
        (Firmware::IpxeBios | Firmware::IpxeUefi, _) => return Some(url(&crate::script::ipxe_path(mac))),
        (Firmware::PxeBios, Said::X86Bios | Said::Unknown) => "undionly.kpxe",
        (Firmware::PxeUefi, Said::Amd64 | Said::EfiByteCode) => "snponly.efi",
        (Firmware::PxeUefi, Said::Arm64) | (Firmware::HttpBoot, Said::Arm64) => "ipxe-arm64.efi",
        (Firmware::HttpBoot, Said::Amd64 | Said::EfiByteCode) => "ipxe.efi",
        _ => return None,
    };
    let environment = index.environment(architecture(client.architecture).unwrap_or(Architecture::Amd64))?;
    let offered = environment.loaders.iter().any(|file| file.name == loader) && index.file(loader).is_some();
    match client.firmware {
        Firmware::HttpBoot => offered.then(|| url(loader)),
        _ => offered.then(|| loader.to_string()),
    }
}

/// Our name of an architecture that firmware said.
fn architecture(said: Said) -> Option<Architecture> {
    match said {
        Said::X86Bios | Said::Amd64 | Said::EfiByteCode => Some(Architecture::Amd64),
        Said::Arm64 => Some(Architecture::Arm64),
        Said::Ppc64 => Some(Architecture::Ppc64el),
        Said::S390x => Some(Architecture::S390x),
        Said::Unknown | Said::I386 | Said::Arm32 | Said::Riscv32 | Said::Riscv64 | Said::Loongarch64 => None,
    }
}

/// The relay's port of a client, as far as the relay tells: what an unknown machine's quota goes by.
fn circuit(request: &Request) -> Option<u64> {
    let information = request.relay_agent_information.as_deref()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&request.relay_agent_ip.octets()).update(information);
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}
