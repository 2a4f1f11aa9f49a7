//! DHCPv4: which address, which boot file. Messages come from `proto`, the table is `leases`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bootstorm_proto::dhcp::DropReason;
use bootstorm_proto::dhcp::client_kind::{BootClient, Firmware, classify};
use bootstorm_proto::dhcp::options::{Architecture as Said, MessageType, SetBy, code, option_row, sub_options};
use bootstorm_proto::dhcp::server::{Delivery, Intent, destination, intent};
use bootstorm_proto::dhcp::wire::{BootFile, LeaseTimes, ProxyDhcpWait, PxeDiscovery, Reply, Request, is_host_name};
use bootstorm_proto::limits::DHCP_MESSAGE_BYTES_MAX;
use bootstorm_snapshot::dhcp::{Identity, NamedReservation, Octets};
use bootstorm_snapshot::record::{Answer, Subnet, Unknown};
use bootstorm_snapshot::{Architecture, Mac, MachineId, Observed, Stage, SubnetId};

use crate::attempts::Who;
use crate::engine::{Engine, Interface, Output};
use crate::index::Index;
use crate::leases::{Asker, Lease, NoAddress};
use crate::record::Record;
use crate::spool::Worth;
use crate::waiting::{Datagram, Half, Rank};
use crate::{Time, limits};

/// One request with everything that was found out about it.
struct Context<'a> {
    request: Request,
    client: BootClient,
    mac: Mac,
    interface: Interface,
    /// What the client knows this server by (option 54): our address, or what its relay puts in the place of it.
    server: Ipv4Addr,
    /// The subnet of the client's address; until it has one, that of its link.
    subnet: &'a Subnet,
    /// All subnets of its link, the one that the interface or relay is in first.
    network: Vec<&'a Subnet>,
    /// Fixed address in the subnet.
    fixed: Option<Ipv4Addr>,
    hostname: Option<&'a str>,
    machine: Option<MachineId>,
    known: bool,
    circuit: Option<u64>,
}

impl<'a> Context<'a> {
    /// The subnet of its link that an address lies in.
    fn subnet_of(&self, address: Ipv4Addr) -> Option<&'a Subnet> {
        self.network.iter().copied().find(|subnet| subnet.cidr.contains(address))
    }
}

impl Engine {
    /// Takes a datagram that came to port 67 of an interface.
    pub fn handle_dhcp(&mut self, now: Time, interface: u32, from: IpAddr, delivery: Delivery, bytes: &[u8]) {
        let outcome = match self.waiting.first() {
            // Nobody overtakes those of its own rank.
            Some(_) => match Request::parse(bytes) {
                Ok(request) if self.waiting.is_behind(self.rank(Mac(request.client_hardware_address))) => Err(BUSY),
                Ok(_) => self.answer_dhcp(now, interface, from, delivery, bytes),
                Err(reason) => Err(reason.name()),
            },
            None => self.answer_dhcp(now, interface, from, delivery, bytes),
        };
        match outcome {
            Ok(()) => {}
            Err(BUSY) if !self.is_stopped() => {
                self.wait(now, Datagram { interface, from, delivery, bytes: bytes.to_vec() });
            }
            Err(reason) => self.counters.add("dhcp_dropped", reason),
        }
        self.finish();
    }

    /// Answers those that have waited, as far as the journal has room now: to be called when it has committed something.
    pub fn handle_waiting(&mut self, now: Time) {
        while let Some(rank) = self.waiting.first()
            && self.may_commit_for(rank)
            && let Some((since, datagram)) = self.waiting.take()
        {
            let Datagram { interface, from, delivery, bytes } = datagram;
            let outcome = match now.monotonic.saturating_sub(since) <= limits::WAITING_PATIENCE {
                true => self.answer_dhcp(now, interface, from, delivery, &bytes),
                false => Err("waited_too_long"),
            };
            if let Err(reason) = outcome {
                self.counters.add("dhcp_dropped", reason);
            }
            self.finish();
        }
    }

    /// Lets a request wait for room in the journal.
    fn wait(&mut self, now: Time, datagram: Datagram) {
        let Ok(request) = Request::parse(&datagram.bytes) else { return };
        let mac = Mac(request.client_hardware_address);
        let half = if request.message_type == MessageType::Discover { Half::First } else { Half::Second };
        self.counters.add("dhcp", "waits");
        if !self.waiting.add(now.monotonic, (self.rank(mac), half), mac, datagram) {
            self.counters.add("dhcp_dropped", "waiting_full");
        }
    }

    fn rank(&self, mac: Mac) -> Rank {
        if self.index.is_known(mac) {
            return Rank::Known;
        }
        match self.attempts.enrolment_of(mac).and_then(|who| self.attempts.get(who)) {
            Some(state) if state.claim.is_some() || state.agent.is_some() => Rank::Redeeming,
            Some(_) => Rank::Enrolled,
            None => Rank::Unknown,
        }
    }

    fn answer_dhcp(
        &mut self,
        now: Time,
        interface: u32,
        from: IpAddr,
        delivery: Delivery,
        bytes: &[u8],
    ) -> Result<(), &'static str> {
        let interface = *self.interface(interface).ok_or("interface")?;
        if self.config.interfaces.iter().any(|ours| IpAddr::V4(ours.address) == from) {
            return Err(DropReason::FromOwnAddress.name());
        }
        let request = Request::parse(bytes).map_err(DropReason::name)?;
        let intent = intent(&request, delivery).map_err(DropReason::name)?;
        let index = Arc::clone(&self.index);
        if let Some(subnet) = index.proxied_subnet_of(interface.address)
            && request.relay_agent_ip.is_unspecified()
        {
            return self.answer_as_proxy(&index, &request, interface, intent, subnet);
        }
        let context = self.context(&index, request, interface, intent)?;
        match intent {
            Intent::Discover { requested } => self.discover(now, context, requested),
            Intent::Select { server, requested } => self.select(now, &context, server, requested),
            Intent::Reboot { requested } => self.reboot(now, &context, requested),
            Intent::Renew { client_ip } => self.renew(now, &context, client_ip, Silence::Never),
            Intent::Rebind { client_ip } => self.renew(now, &context, client_ip, Silence::WhereUnknown),
            Intent::Decline { server, address } => self.decline(now, &context, server, address),
            Intent::Release { server, client_ip } => self.release(now, &context, server, client_ip),
            Intent::Inform { client_ip } => self.inform(&context, client_ip),
        }
    }

    /// Beside somebody else's server: says what to boot, and nothing about addresses (PXE 2.1 §2.2). The offer has a server and a
    /// file, so that firmware does not ask on port 4011 for them.
    fn answer_as_proxy(
        &mut self,
        index: &Index,
        request: &Request,
        interface: Interface,
        intent: Intent,
        subnet: &Subnet,
    ) -> Result<(), &'static str> {
        let (Intent::Discover { .. }, client) = (intent, classify(request)) else { return Err("proxy_not_asked") };
        let mac = Mac(request.client_hardware_address);
        let machine = index.machine(mac);
        let unknown = index.view().site.as_ref().map(|site| site.unknown).ok_or("no_snapshot")?;
        if machine.is_none() && unknown == Unknown::Ignore {
            return Err("unknown_ignored");
        }
        let asks = client.vendor_class_echo().is_some() || client.is_ipxe();
        let file = boot_file(index, client, mac, interface.address, self.config.http_port).filter(|_| asks);
        let file = file.ok_or("proxy_not_asked")?;
        let server = interface.address.to_string();
        let mut reply = Reply::new(MessageType::Offer, interface.address);
        put_boot_file(&mut reply, client, &file, &server, interface.address);
        // In an offer without an address iPXE looks for this class too.
        reply.vendor_class = reply.vendor_class.or(Some(b"PXEClient"));
        let set = index.options(subnet, Ipv4Addr::UNSPECIFIED, machine);
        let extra = put_options(&mut reply, request, &set, &server);
        reply.extra = &extra;
        self.counters.add("dhcp", "proxy_offer");
        let output = encode(request, interface, &reply)?;
        self.emit(output);
        Ok(())
    }

    /// Finds subnet, fixed address and owner.
    fn context<'a>(
        &self,
        index: &'a Index,
        request: Request,
        interface: Interface,
        intent: Intent,
    ) -> Result<Context<'a>, &'static str> {
        let mac = Mac(request.client_hardware_address);
        let relay = relay(&request);
        let link = match &relay {
            None => index.subnet_of(interface.address).ok_or("no_subnet")?,
            Some(relay) => {
                // An answer goes wherever a relay's address says: only to networks that are ours (threat model, DHCPv4).
                let known = index.view().subnets.values().any(|subnet| subnet.cidr.contains(relay.address));
                let link = known.then(|| index.subnet_of(relay.link.unwrap_or(relay.address))).flatten();
                link.ok_or(DropReason::UnknownRelay.name())?
            }
        };
        let network = index.network(link);
        let reservation = network.iter().find_map(|subnet| index.reservation(mac, subnet.id));
        let reservation = reservation.map(|one| (one.subnet, one.address, one.hostname.as_deref()));
        let reservation = reservation.or_else(|| {
            let named = self.named_reservation(index, mac, relay.as_ref(), &request)?;
            let is_here = network.iter().any(|subnet| subnet.id == named.subnet);
            is_here.then_some((named.subnet, named.address, named.hostname.as_deref()))
        });
        let machine = index.machine(mac);
        let known = machine.is_some() || reservation.is_some();
        let unknown = index.view().site.as_ref().map(|site| site.unknown).ok_or("no_snapshot")?;
        if !known && unknown == Unknown::Ignore {
            return Err("unknown_ignored");
        }
        let hostname = reservation.and_then(|(_, _, hostname)| hostname);
        let hostname = hostname.or_else(|| Some(index.boot(machine?)?.hostname.as_str()));
        let subnet = self.subnet_of_client(&network, mac, reservation.map(|(subnet, ..)| subnet), intent);
        let circuit = relay.as_ref().filter(|_| !known).and_then(|relay| circuit(relay, &request));
        Ok(Context {
            client: classify(&request),
            mac,
            server: relay.as_ref().and_then(|relay| relay.server).unwrap_or(interface.address),
            subnet: subnet.unwrap_or(link),
            fixed: reservation.map(|(_, address, _)| address),
            machine,
            hostname: hostname.filter(|name| is_host_name(name)),
            known,
            circuit,
            network,
            request,
            interface,
        })
    }

    /// The address kept for the client's identifier or its relay's port. While another holds it the client is as others are:
    /// names are less sure than MAC addresses, and no address is given twice.
    fn named_reservation<'a>(
        &self,
        index: &'a Index,
        mac: Mac,
        relay: Option<&Relay<'_>>,
        request: &Request,
    ) -> Option<&'a NamedReservation> {
        if !index.has_named_reservations() {
            return None;
        }
        let octets = |data: &[u8]| Octets(data.to_vec());
        let client = request.client_identifier.as_deref().map(octets).map(Identity::Client);
        let circuit = relay.and_then(|relay| relay.circuit).map(octets).map(Identity::Circuit);
        let remote = relay.and_then(|relay| relay.remote).map(octets).map(Identity::Remote);
        let mut names = [client, circuit, remote].into_iter().flatten();
        let reservation = names.find_map(|name| index.named_reservation(&name))?;
        self.leases.holder(reservation.address).is_none_or(|lease| lease.mac == mac).then_some(reservation)
    }

    /// Of several subnets on one link: that of the fixed address, of the offer taken, of the client's lease, or of the address
    /// it speaks of; `None` if none of these says anything.
    fn subnet_of_client<'a>(
        &self,
        network: &[&'a Subnet],
        mac: Mac,
        fixed: Option<SubnetId>,
        intent: Intent,
    ) -> Option<&'a Subnet> {
        if let Some(fixed) = fixed {
            return network.iter().copied().find(|subnet| subnet.id == fixed);
        }
        if network.len() == 1 {
            return None;
        }
        let said = match intent {
            Intent::Discover { requested } => requested,
            Intent::Select { requested, .. } => {
                return network.iter().copied().find(|subnet| subnet.cidr.contains(requested));
            }
            Intent::Reboot { requested } => Some(requested),
            Intent::Decline { address, .. } => Some(address),
            Intent::Renew { client_ip } | Intent::Rebind { client_ip } => Some(client_ip),
            Intent::Release { client_ip, .. } | Intent::Inform { client_ip } => Some(client_ip),
        };
        let leased = network.iter().copied().find(|subnet| self.leases.of_client(subnet.id, mac).is_some());
        leased.or_else(|| said.and_then(|said| network.iter().copied().find(|subnet| subnet.cidr.contains(said))))
    }

    fn discover(&mut self, now: Time, context: Context<'_>, wish: Option<Ipv4Addr>) -> Result<(), &'static str> {
        if self.is_stopped() {
            // An offer that cannot be kept would hold the client off a server whose can.
            return Err("journal_stopped");
        }
        let mut context = context;
        let address = match context.fixed {
            Some(address) => address,
            None => self.choose(now, &mut context, wish)?,
        };
        self.counters.add("dhcp", "offer");
        let output = self.grant(&context, MessageType::Offer, address)?;
        self.emit(output);
        Ok(())
    }

    /// An address of the client's subnet, or of another on its link when that has none left.
    fn choose(
        &mut self,
        now: Time,
        context: &mut Context<'_>,
        wish: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr, &'static str> {
        let first = context.subnet;
        let mut outcome = self.choose_in(now, context, wish);
        for subnet in context.network.clone() {
            if outcome != Err(NoAddress::Exhausted) {
                break;
            }
            if subnet.id != first.id {
                context.subnet = subnet;
                outcome = self.choose_in(now, context, wish);
            }
        }
        outcome.map_err(|reason| match reason {
            NoAddress::Exhausted => "range_exhausted",
            NoAddress::TableFull => "offers_full",
            NoAddress::Quota => "circuit_quota",
        })
    }

    fn choose_in(&mut self, now: Time, context: &Context<'_>, wish: Option<Ipv4Addr>) -> Result<Ipv4Addr, NoAddress> {
        let (index, interfaces, subnet) = (&self.index, &self.config.interfaces, context.subnet);
        let taken = |address: Ipv4Addr| {
            index.is_reserved(address)
                || interfaces.iter().any(|interface| interface.address == address)
                || subnet.gateway == Some(address)
                || subnet.dns_servers.contains(&address)
                || address == subnet.cidr.network()
                || address == subnet.cidr.broadcast()
        };
        let asker = Asker { mac: context.mac, known: context.known, circuit: context.circuit, wish };
        self.leases.choose(now.monotonic, subnet, asker, taken)
    }

    fn select(
        &mut self,
        now: Time,
        context: &Context<'_>,
        server: Ipv4Addr,
        requested: Ipv4Addr,
    ) -> Result<(), &'static str> {
        if server != context.server {
            // The client took another server's offer: ours is free again.
            for subnet in &context.network {
                self.leases.withdraw(subnet.id, context.mac);
            }
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

    fn reboot(&mut self, now: Time, context: &Context<'_>, requested: Ipv4Addr) -> Result<(), &'static str> {
        if context.subnet_of(requested).is_none() {
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
        context: &Context<'_>,
        client_ip: Ipv4Addr,
        silence: Silence,
    ) -> Result<(), &'static str> {
        match self.rightful(context) {
            Some(address) if address == client_ip && self.is_free_for(context, client_ip) => {
                self.acknowledge(now, context, client_ip)
            }
            Some(_) => self.refuse(context, "not your address"),
            None if silence == Silence::WhereUnknown && context.subnet_of(client_ip).is_some() => Err("unknown_rebind"),
            None => self.refuse(context, "no lease"),
        }
    }

    /// The address that a client has a right to: its fixed one, or that of its lease.
    fn rightful(&self, context: &Context<'_>) -> Option<Ipv4Addr> {
        let lease = || self.leases.of_client(context.subnet.id, context.mac).map(|lease| lease.address);
        context.fixed.or_else(lease)
    }

    /// Whether nobody else has come to have the address meanwhile (a new reservation, another's lease after ours ended).
    fn is_free_for(&self, context: &Context<'_>, address: Ipv4Addr) -> bool {
        if context.fixed == Some(address) {
            return true;
        }
        !self.index.is_reserved(address)
            && self.leases.holder(address).is_none_or(|lease| lease.mac == context.mac)
            && context.subnet.dynamic.iter().any(|range| range.contains(address))
    }

    fn acknowledge(&mut self, now: Time, context: &Context<'_>, address: Ipv4Addr) -> Result<(), &'static str> {
        let times = self.lease_times(context).ok_or("no_snapshot")?;
        let until_unix_seconds = now.unix_seconds() + u64::from(times.lease_seconds);
        if self.is_repeated(context, address, until_unix_seconds) {
            return self.acknowledge_again(now, context, address);
        }
        let rank = if context.known { Rank::Known } else { self.rank(context.mac) };
        if !self.may_commit_for(rank) {
            return self.confirm(now, context, address);
        }
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
        for displaced in self.leases.put(lease) {
            if displaced.address != address {
                self.journal(Record::LeaseForgotten { address: displaced.address });
            }
            if !displaced.ended {
                let ended = Observed::LeaseEnded { mac: displaced.mac, address: displaced.address };
                self.observe(now, Worth::Minor, ended);
            }
        }
        self.journal(Record::Lease(lease));
        self.doubt(address);
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

    /// Whether a client has just been given what it asks for: its request came twice, or it is the next loader's.
    fn is_repeated(&self, context: &Context<'_>, address: Ipv4Addr, until_unix_seconds: u64) -> bool {
        let said = architecture(context.client.architecture);
        self.leases.holder(address).is_some_and(|lease| {
            let age = until_unix_seconds.checked_sub(lease.until_unix_seconds);
            (lease.mac, lease.subnet, lease.circuit) == (context.mac, context.subnet.id, context.circuit)
                && age.is_some_and(|age| age <= limits::REPEATED_REQUEST_SECONDS)
                && (said.is_none() || said == lease.architecture)
        })
    }

    /// Gives a client its lease again as it is: at once, or together with the answer that waits for the disk. Nothing is written.
    fn acknowledge_again(&mut self, now: Time, context: &Context<'_>, address: Ipv4Addr) -> Result<(), &'static str> {
        let until = self.leases.holder(address).map_or(0, |lease| lease.until_unix_seconds);
        let left = u32::try_from(until.saturating_sub(now.unix_seconds())).unwrap_or(u32::MAX);
        self.leases.withdraw(context.subnet.id, context.mac);
        if self.may_commit() {
            self.trace_dhcp(now, context, address);
        }
        self.counters.add("dhcp", "ack_again");
        let output = self.grant_for(context, MessageType::Ack, address, LeaseTimes::new(left))?;
        if self.is_doubtful(address) {
            self.promise(output)
        } else {
            self.emit(output)
        }
        Ok(())
    }

    /// While nothing can be written, a client keeps what the disk has for certain, for the time that is left of it.
    fn confirm(&mut self, now: Time, context: &Context<'_>, address: Ipv4Addr) -> Result<(), &'static str> {
        let lease = self.leases.holder(address).filter(|lease| lease.mac == context.mac && !self.is_doubtful(address));
        let left = lease.map_or(0, |lease| lease.until_unix_seconds.saturating_sub(now.unix_seconds()));
        if left == 0 {
            return Err(BUSY);
        }
        self.counters.add("dhcp", "ack_unextended");
        let times = LeaseTimes::new(u32::try_from(left).unwrap_or(u32::MAX));
        let output = self.grant_for(context, MessageType::Ack, address, times)?;
        self.emit(output);
        Ok(())
    }

    /// The stage *dhcp* of a machine that is to boot the agent.
    fn trace_dhcp(&mut self, now: Time, context: &Context<'_>, address: Ipv4Addr) {
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

    fn refuse(&mut self, context: &Context<'_>, why: &'static str) -> Result<(), &'static str> {
        self.counters.add("dhcp", "nak");
        let mut reply = Reply::new(MessageType::Nak, context.server);
        reply.message = Some(why);
        let output = encode(&context.request, context.interface, &reply)?;
        self.emit(output);
        Ok(())
    }

    fn decline(
        &mut self,
        now: Time,
        context: &Context<'_>,
        server: Ipv4Addr,
        address: Ipv4Addr,
    ) -> Result<(), &'static str> {
        if server != context.server {
            return Err(DropReason::WrongServer.name());
        }
        if self.rightful(context) != Some(address) {
            return Err("decline_not_held");
        }
        if !self.may_commit() {
            return Err(BUSY);
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
        context: &Context<'_>,
        server: Option<Ipv4Addr>,
        client_ip: Ipv4Addr,
    ) -> Result<(), &'static str> {
        if server.is_some_and(|server| server != context.server) {
            return Err(DropReason::WrongServer.name());
        }
        if self.leases.holder(client_ip).is_none_or(|lease| lease.mac != context.mac) {
            return Err("release_not_held");
        }
        if !self.may_commit() {
            return Err(BUSY);
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

    fn inform(&mut self, context: &Context<'_>, client_ip: Ipv4Addr) -> Result<(), &'static str> {
        let subnet = context.subnet_of(client_ip).ok_or("inform_wrong_network")?;
        self.counters.add("dhcp", "inform");
        let mut reply = Reply::new(MessageType::Ack, context.server);
        fill_network(&mut reply, subnet, context.hostname);
        let output = encode(&context.request, context.interface, &reply)?;
        self.emit(output);
        Ok(())
    }

    fn lease_times(&self, context: &Context<'_>) -> Option<LeaseTimes> {
        let site = self.view().site.as_ref()?;
        let booting = !context.known
            || context.client.is_boot_firmware()
            || context.machine.is_some_and(|machine| self.has_work(machine));
        let seconds = if booting { site.boot_lease_seconds } else { site.lease_seconds };
        Some(LeaseTimes::new(seconds.max(60)))
    }

    /// Whether the agent is to do something on a machine: who asks for its address is the agent, and will be gone soon.
    fn has_work(&self, machine: MachineId) -> bool {
        let Some(Answer::Agent { operation, .. }) = self.index.boot(machine).map(|boot| boot.answer) else {
            return false;
        };
        let state = self.attempts.get(Who::Machine { machine });
        state.is_none_or(|state| state.operation != Some(operation) || state.outcome.is_none())
    }

    /// The agent leaves: the short leases that brought it up end soon, unless what is started now takes them over. Addresses
    /// that are kept for the machine are its own.
    pub(crate) fn give_leases_back(&mut self, now: Time, who: Who) {
        let index = Arc::clone(&self.index);
        let macs = match who {
            Who::Machine { machine } => index.boot(machine).map(|boot| boot.macs.clone()).unwrap_or_default(),
            Who::Enrolment { mac, .. } => vec![mac],
        };
        let short = index.view().site.as_ref().map_or(0, |site| u64::from(site.boot_lease_seconds.max(60)));
        let (soon, long) = (now.unix_seconds() + limits::GIVEN_BACK_SECONDS, now.unix_seconds() + short);
        let subnets = index.view().subnets.keys();
        let clients = subnets.flat_map(|subnet| macs.iter().map(|mac| (*subnet, *mac)));
        for lease in clients.filter_map(|(subnet, mac)| self.leases.of_client(subnet, mac).copied()).collect::<Vec<_>>()
        {
            let ends = lease.until_unix_seconds;
            if lease.ended || index.is_reserved(lease.address) || ends <= soon || ends > long {
                continue;
            }
            let lease = Lease { until_unix_seconds: soon, ..lease };
            self.leases.put(lease);
            self.journal(Record::Lease(lease));
            self.counters.add("dhcp", "given_back");
        }
    }

    /// An Offer or Ack with everything in it.
    fn grant(&self, context: &Context<'_>, kind: MessageType, address: Ipv4Addr) -> Result<Output, &'static str> {
        self.grant_for(context, kind, address, self.lease_times(context).ok_or("no_snapshot")?)
    }

    fn grant_for(
        &self,
        context: &Context<'_>,
        kind: MessageType,
        address: Ipv4Addr,
        times: LeaseTimes,
    ) -> Result<Output, &'static str> {
        let mut reply = Reply::new(kind, context.server);
        reply.your_ip = address;
        reply.lease = Some(times);
        fill_network(&mut reply, context.subnet, context.hostname);
        let (rack, http_port) = (context.interface.address, self.config.http_port);
        let file = boot_file(&self.index, context.client, context.mac, rack, http_port);
        let onie = onie_url(&self.index, &context.request, rack, http_port);
        let server = rack.to_string();
        if let Some(file) = &file {
            put_boot_file(&mut reply, context.client, file, &server, rack);
        }
        if context.client.is_ipxe() {
            reply.proxy_dhcp_wait = ProxyDhcpWait::Skip;
        }
        let set = self.index.options(context.subnet, address, context.machine);
        let mut extra = put_options(&mut reply, &context.request, &set, &server);
        if let Some(url) = &onie
            && !set.iter().any(|(code, _)| *code == code::DEFAULT_URL)
        {
            extra.push((code::DEFAULT_URL, url.as_bytes()));
        }
        reply.extra = &extra;
        encode(&context.request, context.interface, &reply)
    }
}

/// The journal has more to write than it may have: the request waits until it has room.
const BUSY: &str = "journal_busy";

/// Whether a server without a record of the client may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    Never,
    WhereUnknown,
}

fn encode(request: &Request, interface: Interface, reply: &Reply<'_>) -> Result<Output, &'static str> {
    let mut bytes = vec![0; DHCP_MESSAGE_BYTES_MAX];
    let encoded = reply.encode(request, &mut bytes).map_err(|_| "reply_too_long")?;
    bytes.truncate(encoded.bytes);
    let to = destination(request, reply.message_type, reply.your_ip);
    Ok(Output::Dhcp { interface: interface.index, to, bytes })
}

fn put_boot_file<'a>(reply: &mut Reply<'a>, client: BootClient, file: &'a str, server: &'a str, rack: Ipv4Addr) {
    let is_url = file.starts_with("http://");
    reply.next_server_ip = rack;
    reply.boot_file = Some(BootFile { name: file, server_name: (!is_url).then_some(server) });
    reply.vendor_class = client.vendor_class_echo();
    if matches!(client.firmware, Firmware::PxeBios | Firmware::PxeUefi) {
        reply.pxe_discovery = PxeDiscovery::UseBootFile;
    }
}

/// Puts the options set for a client in the place of what the reply has; gives those that have no field of their own in it, the
/// ones that the client asks for first.
fn put_options<'a>(
    reply: &mut Reply<'a>,
    request: &Request,
    set: &[(u8, &'a [u8])],
    rack: &'a str,
) -> Vec<(u8, &'a [u8])> {
    let text = |data: &'a [u8]| core::str::from_utf8(data).ok().filter(|text| !text.is_empty());
    let mut extra = Vec::with_capacity(set.len() + 1);
    for (code, data) in set {
        match *code {
            code::ROUTERS => reply.routers = &[],
            code::DOMAIN_NAME_SERVERS => reply.domain_name_servers = &[],
            code::HOST_NAME => reply.host_name = None,
            code::DOMAIN_NAME => reply.domain_name = None,
            code::INTERFACE_MTU => reply.mtu = None,
            code::BROADCAST_ADDRESS => reply.broadcast_address = None,
            code::NTP_SERVERS => reply.ntp_servers = &[],
            code::VENDOR_SPECIFIC => reply.pxe_discovery = PxeDiscovery::Unsaid,
            code::VENDOR_CLASS => reply.vendor_class = None,
            code::IPXE => reply.proxy_dhcp_wait = ProxyDhcpWait::Unsaid,
            code::BOOT_FILE => {
                let server_name = reply.boot_file.map_or(Some(rack), |boot| boot.server_name);
                reply.boot_file = text(data).map(|name| BootFile { name, server_name });
                continue;
            }
            // In the order of codes this comes before the file's name, which keeps it.
            code::TFTP_SERVER_NAME => {
                let name = reply.boot_file.map_or("", |boot| boot.name);
                reply.boot_file = Some(BootFile { name, server_name: text(data) });
                continue;
            }
            _ => {}
        }
        let is_told = match option_row(*code).map(|row| row.set_by) {
            Some(SetBy::OperatorIfAsked) => request.asks_for(*code),
            Some(SetBy::Operator | SetBy::Server | SetBy::Client) | None => true,
        };
        if is_told && !data.is_empty() {
            extra.push((*code, *data));
        }
    }
    // A server's name without a file's is no boot file.
    reply.boot_file = reply.boot_file.filter(|boot| !boot.name.is_empty());
    extra.sort_by_key(|(code, _)| !request.asks_for(*code));
    extra
}

/// The URL of a network switch's installer, for ONIE (which asks for options 114 and 67, and says who it is in option 60), if a
/// boot environment brings one.
fn onie_url(index: &Index, request: &Request, rack: Ipv4Addr, http_port: u16) -> Option<String> {
    let is_onie = request.vendor_class.as_deref().is_some_and(|class| class.starts_with(b"onie_vendor:"));
    index.file(ONIE_INSTALLER).filter(|_| is_onie)?;
    Some(format!("http://{rack}:{http_port}/{ONIE_INSTALLER}"))
}

/// Name of the installer among the loaders of a boot environment.
const ONIE_INSTALLER: &str = "onie-installer";

fn fill_network<'a>(reply: &mut Reply<'a>, subnet: &'a Subnet, hostname: Option<&'a str>) {
    reply.subnet_mask = Some(subnet.cidr.mask());
    reply.routers = subnet.gateway.as_slice();
    reply.domain_name_servers = &subnet.dns_servers;
    reply.ntp_servers = &subnet.ntp_servers;
    reply.domain_name = subnet.domain.as_deref().filter(|name| is_host_name(name));
    reply.mtu = subnet.mtu;
    reply.broadcast_address = Some(subnet.cidr.broadcast());
    reply.host_name = hostname;
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
        (Firmware::HttpBoot, Said::X86Bios) => "undionly.kpxe",
        // GRUB for Open Firmware; without it SLOF walks the names of PXELINUX configurations, as s390 always does.
        (Firmware::OpenFirmware, Said::Ppc64) => "core.elf",
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

/// What the relay of a request says (option 82).
struct Relay<'a> {
    address: Ipv4Addr,
    /// Sub-option 1: the relay's port.
    circuit: Option<&'a [u8]>,
    /// Sub-option 2: who is at it.
    remote: Option<&'a [u8]>,
    /// Sub-option 5: an address of the client's link, where the relay's own is of another (RFC 3527).
    link: Option<Ipv4Addr>,
    /// Sub-option 11: what the client is to take for its server, so that its renewals pass the relay (RFC 5107).
    server: Option<Ipv4Addr>,
}

/// The relay that a request came by. Without one, option 82 is a client's invention and says nothing.
fn relay(request: &Request) -> Option<Relay<'_>> {
    if request.relay_agent_ip.is_unspecified() {
        return None;
    }
    let information = || request.relay_agent_information.as_deref().map(sub_options).into_iter().flatten();
    let find = |code: u8| information().find(|(known, _)| *known == code).map(|(_, data)| data);
    let address = |code: u8| find(code).and_then(|data| <[u8; 4]>::try_from(data).ok()).map(Ipv4Addr::from);
    Some(Relay {
        address: request.relay_agent_ip,
        circuit: find(1),
        remote: find(2),
        link: address(5),
        server: address(11).filter(|server| !server.is_unspecified()),
    })
}

/// The relay's port of a client, as far as the relay tells: what an unknown machine's quota goes by.
fn circuit(relay: &Relay<'_>, request: &Request) -> Option<u64> {
    let information = request.relay_agent_information.as_deref()?;
    let mut hasher = blake3::Hasher::new();
    hasher.update(&relay.address.octets());
    match (relay.circuit, relay.remote) {
        (None, None) => hasher.update(information),
        (circuit, remote) => {
            // The length keeps the two apart.
            let circuit = circuit.unwrap_or_default();
            hasher.update(&(circuit.len() as u64).to_le_bytes()).update(circuit).update(remote.unwrap_or_default())
        }
    };
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    Some(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
}
