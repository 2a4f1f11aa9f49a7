//! The way from power-on to a running kernel: DHCP, the loader, its scripts.

use std::net::Ipv4Addr;
use std::time::Duration;

use bootstorm_proto::dhcp::client::{self as dhcp, Profile};
use bootstorm_proto::dhcp::wire::Answer;

use super::transfer::{Purpose, asks_sizes};
use super::{Action, Doing, Ending, Lease, LoaderChoice, Node, Stage, Who};
use crate::agent;
use crate::firmware::Speaker;
use crate::reason::Reason;
use crate::schedule::Firmware;
use crate::script::pxelinux::Client;
use crate::script::{Grub, Interpreter, Ipxe, Location, Outcome, Pxelinux, Step, What};

impl Node {
    /// What happens first.
    pub(super) fn power_on(&mut self, now: Duration) {
        self.start_dhcp(now, if self.start.firmware == Firmware::Ipxe { Who::Ipxe } else { Who::Firmware });
    }

    fn start_dhcp(&mut self, now: Duration, who: Who) {
        self.enter(now, Stage::Dhcp);
        self.speaker = match who {
            Who::Firmware => Speaker::Firmware(self.start.firmware),
            Who::Ipxe => Speaker::Ipxe,
        };
        let profile = match (who, self.start.firmware) {
            (Who::Firmware, Firmware::Bios) => Profile::PXE_BIOS,
            (Who::Firmware, Firmware::Uefi) => Profile::OVMF_PXE,
            (Who::Firmware, Firmware::Http) => Profile::OVMF_HTTP,
            (Who::Ipxe, Firmware::Uefi | Firmware::Http) => Profile::IPXE_UEFI,
            (_, Firmware::Ipxe) | (Who::Ipxe, Firmware::Bios) => Profile::IPXE_BIOS,
        };
        let transaction = (self.random.next() >> 32) as u32;
        let mut client = dhcp::Client::new(profile, self.start.mac, agent::uuid(self.start.mac), transaction);
        client.start(now);
        self.doing = Doing::Dhcp(Box::new(client), who);
        self.drain_dhcp(now);
    }

    pub(super) fn drain_dhcp(&mut self, now: Duration) {
        let Doing::Dhcp(client, who) = &mut self.doing else { return };
        let who = *who;
        let mut end = None;
        while let Some(output) = client.poll_output() {
            match output {
                dhcp::Output::Send(message) => self.actions.push_back(Action::SendDhcp(message.to_vec())),
                dhcp::Output::Bound(answer) => end = Some(Ok(answer.clone())),
                dhcp::Output::Failed(failure) => end = Some(Err(Reason::Dhcp(failure))),
            }
        }
        match end {
            None => {}
            Some(Ok(answer)) => self.bound(now, &answer, who),
            Some(Err(reason)) => self.end(now, Ending::Failed(reason)),
        }
    }

    fn bound(&mut self, now: Duration, answer: &Answer, who: Who) {
        let address = answer.your_ip;
        let is_known = self.lease.as_ref().is_some_and(|lease| lease.address == address);
        let next_server = Some(answer.next_server_ip).filter(|next| !next.is_unspecified());
        let named = answer.server_name.as_deref().and_then(|name| name.parse().ok());
        self.lease = Some(Lease {
            address,
            server: next_server.or(named),
            boot_file: answer.boot_file.as_deref().map(str::to_owned),
        });
        if is_known {
            return self.boot(now, who);
        }
        self.doing = Doing::Address(who);
        let bits = answer.subnet_mask.map_or(32, |mask| u32::from(mask).leading_ones() as u8);
        self.actions.push_back(Action::UseAddress(address, bits));
    }

    /// Fetches what DHCP named. The address is announced first, after each lease: dnsmasq enters the client's own MAC address
    /// into its host's neighbour table with each answer, whereas our sockets have the interface's.
    pub(super) fn boot(&mut self, now: Duration, who: Who) {
        self.actions.extend(self.lease.as_ref().map(|lease| Action::Announce(lease.address)));
        let result = self.start_boot(now, who);
        self.check(now, result);
    }

    fn start_boot(&mut self, now: Duration, who: Who) -> Result<(), Reason> {
        let file = self.boot_file()?;
        match who {
            Who::Firmware => self.load(now, file),
            // An iPXE that is given another loader loads it, as a chain would.
            Who::Ipxe if self.kind_of(&file) != LoaderChoice::Ipxe => self.load(now, file),
            Who::Ipxe => {
                self.enter(now, Stage::Script);
                self.script = Some(Interpreter::Ipxe(Box::new(Ipxe::new(self.ipxe_settings()))));
                self.fetch(now, &file, Purpose::Script(file.clone()))
            }
        }
    }

    fn load(&mut self, now: Duration, file: Location) -> Result<(), Reason> {
        self.enter(now, Stage::Loader);
        let purpose = Purpose::Loader(file.clone());
        if asks_sizes(self.speaker) { self.fetch_sized(now, &file, purpose) } else { self.fetch(now, &file, purpose) }
    }

    /// Where the boot file is: a URL, or a name on the next server's TFTP.
    fn boot_file(&self) -> Result<Location, Reason> {
        let lease = self.lease.as_ref().ok_or(Reason::NoBootFile)?;
        let name = lease.boot_file.as_deref().ok_or(Reason::NoBootFile)?;
        if name.contains("://") {
            return Location::parse(name, None).ok_or(Reason::Url);
        }
        let server = lease.server.ok_or(Reason::NoBootFile)?;
        Ok(Location::Tftp(server, name.to_owned()))
    }

    /// What the file is taken for.
    fn kind_of(&self, file: &Location) -> LoaderChoice {
        match self.settings.loader {
            LoaderChoice::Auto => {}
            chosen => return chosen,
        }
        let name = file.file_name();
        let is_grub = ["grub", "shim", "bootnet"].iter().any(|start| name.starts_with(start));
        if is_grub || matches!(name, "core.elf" | "core.0" | "core.efi") {
            LoaderChoice::Grub
        } else if matches!(name, "pxelinux.0" | "lpxelinux.0" | "gpxelinux.0") {
            LoaderChoice::Pxelinux
        } else {
            LoaderChoice::Ipxe
        }
    }

    fn is_uefi(&self) -> bool {
        match self.start.firmware {
            Firmware::Bios | Firmware::Ipxe => false,
            Firmware::Uefi | Firmware::Http => true,
        }
    }

    /// The loader is there, and runs.
    fn loaded(&mut self, now: Duration, from: Location) -> Result<(), Reason> {
        self.close();
        let lease = self.lease.as_ref().ok_or(Reason::NoBootFile)?;
        let (address, mac) = (lease.address, self.start.mac);
        match self.kind_of(&from) {
            LoaderChoice::Auto | LoaderChoice::Ipxe => {
                self.start_dhcp(now, Who::Ipxe);
                return Ok(());
            }
            LoaderChoice::Grub => {
                self.speaker = Speaker::Grub;
                let platform = if self.is_uefi() { "x86_64-efi" } else { "i386-pc" };
                let variables = self.grub_variables(address);
                self.script = Some(Interpreter::Grub(Box::new(Grub::new(
                    from,
                    platform,
                    self.settings.grub_prefix.as_deref(),
                    variables,
                ))));
            }
            LoaderChoice::Pxelinux => {
                self.speaker = Speaker::Pxelinux;
                let client = Client { uuid: agent::uuid(mac), mac, address };
                self.script = Some(Interpreter::Pxelinux(Box::new(Pxelinux::new(from, client))));
            }
        }
        self.enter(now, Stage::Script);
        self.step(now)
    }

    fn grub_variables(&self, address: Ipv4Addr) -> Vec<(String, String)> {
        let lease = self.lease.as_ref();
        let server = lease.and_then(|lease| lease.server).map(|server| server.to_string()).unwrap_or_default();
        let mac = bootstorm_snapshot::Mac(self.start.mac).to_string();
        let file = lease.and_then(|lease| lease.boot_file.clone()).unwrap_or_default();
        [
            ("net_default_interface", "efinet0".to_owned()),
            ("net_default_mac", mac),
            ("net_default_ip", address.to_string()),
            ("net_default_server", server.clone()),
            ("net_efinet0_next_server", server),
            ("net_efinet0_boot_file", file),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    fn ipxe_settings(&self) -> Vec<(String, String)> {
        let lease = self.lease.as_ref();
        let address = lease.map(|lease| lease.address.to_string()).unwrap_or_default();
        let server = lease.and_then(|lease| lease.server).map(|server| server.to_string()).unwrap_or_default();
        let mac = bootstorm_snapshot::Mac(self.start.mac).to_string();
        let uuid = uuid::Uuid::from_bytes(agent::uuid(self.start.mac)).to_string();
        [
            ("mac", mac.clone()),
            ("net0/mac", mac),
            ("ip", address.clone()),
            ("net0/ip", address),
            ("next-server", server.clone()),
            ("net0/next-server", server),
            ("filename", lease.and_then(|lease| lease.boot_file.clone()).unwrap_or_default()),
            ("platform", if self.is_uefi() { "efi" } else { "pcbios" }.to_owned()),
            ("buildarch", if self.is_uefi() { "x86_64" } else { "i386" }.to_owned()),
            ("uuid", uuid),
            ("manufacturer", "Bootstorm".to_owned()),
            ("product", "Simulated machine".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Goes on with the script after a step that went so.
    pub(super) fn follow(&mut self, now: Duration, outcome: Outcome) -> Result<(), Reason> {
        if let Some(script) = &mut self.script {
            script.done(outcome);
        }
        self.step(now)
    }

    /// Does what the script wants next.
    fn step(&mut self, now: Duration) -> Result<(), Reason> {
        let Some(script) = &mut self.script else { return Ok(()) };
        match script.next() {
            Step::Fetch(what, from) => {
                let (stage, purpose) = match what {
                    What::Script => (Stage::Script, Purpose::Script(from.clone())),
                    What::Module => (Stage::Script, Purpose::Module),
                    What::Library => (Stage::Script, Purpose::Library(from.clone())),
                    What::Kernel => (Stage::Kernel, Purpose::Kernel),
                    What::Initrd => (Stage::Kernel, Purpose::Initrd),
                };
                self.enter(now, stage);
                // GRUB has the firmware's HTTP where it was loaded by it.
                if self.speaker == Speaker::Grub && self.start.firmware == Firmware::Http {
                    self.fetch_sized(now, &from, purpose)
                } else {
                    self.fetch(now, &from, purpose)
                }
            }
            Step::Sleep(time) => {
                self.doing = Doing::Pause(now + time, None);
                Ok(())
            }
            Step::Boot(line) => {
                self.script = None;
                self.speaker = Speaker::System;
                self.booted(now, &line)
            }
            Step::LocalDisk => Err(Reason::LocalDisk),
            Step::Failed(why) => Err(Reason::Script(why)),
        }
    }

    /// The kernel runs: the system in it does what the run wants, or what its command line says.
    fn booted(&mut self, now: Duration, line: &str) -> Result<(), Reason> {
        if self.settings.image.is_some() { self.start_image(now) } else { self.redeem(now, line) }
    }

    /// A transfer has brought this.
    pub(super) fn fetched(&mut self, now: Duration, purpose: Purpose, body: Vec<u8>) -> Result<(), Reason> {
        match purpose {
            Purpose::Loader(from) => self.loaded(now, from),
            Purpose::Script(from) | Purpose::Library(from) => {
                let script = self.script.as_mut().ok_or(Reason::Answer)?;
                script.take(from, &body).map_err(Reason::Script)?;
                self.step(now)
            }
            Purpose::Module | Purpose::Kernel => self.follow(now, Outcome::Success),
            Purpose::Initrd => {
                if let Some(authority) = agent::authority(&body) {
                    self.authority = Some(authority);
                }
                self.follow(now, Outcome::Success)
            }
            Purpose::Redeem => self.granted(now, &body),
            Purpose::Manifest => self.start_stream(now, &body),
            Purpose::Report => self.report_next(now),
            Purpose::Metadata => self.phone_home(now),
            Purpose::Ready | Purpose::PhoneHome => {
                self.end(now, Ending::Done);
                Ok(())
            }
            // Neither comes here: they are answered where they arrive.
            Purpose::Size(..) | Purpose::Part => Ok(()),
        }
    }
}
