//! Boot scripts for iPXE (commands of 2019, as option ROMs have them) and GRUB. Written from fields, no template language:
//! every word comes from the snapshot's checked types or goes through `text` or `word`.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

use bootstorm_snapshot::{Architecture, Mac};

use crate::limits;

/// Which loader reads the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// iPXE.
    Ipxe,
    /// GRUB 2.
    Grub,
}

/// Path of the script of an interface, without a leading `/`; a MAC with dashes needs no escape in a URL.
pub fn ipxe_path(mac: Mac) -> String {
    format!("boot.ipxe?mac={}", mac.to_string().replace(':', "-"))
}

/// What a script is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    /// Ask again after a while, and say why.
    Again { seconds: u64, why: &'a str },
    /// Boot from the machine's own disk.
    Local,
    /// Start the agent.
    Agent(AgentBoot<'a>),
}

/// What it takes to start the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AgentBoot<'a> {
    pub title: &'a str,
    pub architecture: Architecture,
    /// Words of the boot environment.
    pub command_line: &'a [String],
    pub agents: SocketAddrV4,
    /// 32 hexadecimal digits.
    pub claim: &'a str,
    pub address: Option<(Ipv4Addr, u8)>,
    pub gateway: Option<Ipv4Addr>,
    pub with_ca: bool,
}

/// Writes a script for an interface; `http` is the rack's HTTP as the machine sees it.
pub(crate) fn write(format: Format, action: &Action<'_>, mac: Mac, http: SocketAddrV4) -> String {
    let mut out = String::with_capacity(1024);
    // Writing to a string does not fail.
    let _ = match format {
        Format::Ipxe => ipxe(&mut out, action, mac, http),
        Format::Grub => grub(&mut out, action, mac, http),
    };
    out
}

fn ipxe(out: &mut String, action: &Action<'_>, mac: Mac, http: SocketAddrV4) -> std::fmt::Result {
    let script = ipxe_path(mac);
    out.push_str("#!ipxe\n");
    match action {
        Action::Again { seconds, why } => {
            writeln!(out, "echo Bootstorm: {}; asking again in {seconds} s", text(why))?;
            again(out, *seconds, http, &script)
        }
        Action::Local => {
            // A BIOS boots the disk from here; UEFI goes on with its own boot order, but only after an entry that has
            // failed: after one that has not, it may show its menu (UEFI 2.10 §3.1.1).
            out.push_str("echo Bootstorm: booting from the disk\n");
            out.push_str("iseq ${platform} efi && exit 1 ||\n");
            out.push_str("sanboot --no-describe --drive 0x80 || exit\n");
            Ok(())
        }
        Action::Agent(boot) => {
            let directory = format!("http://{http}/environment/{}", boot.architecture);
            writeln!(out, "echo Bootstorm: {}", text(boot.title))?;
            // UEFI finds initrds by these names, BIOS takes all that are loaded.
            let ca = if boot.with_ca { " initrd=ca.cpio" } else { "" };
            let words = words(boot, mac, http);
            writeln!(out, "kernel --name kernel {directory}/kernel initrd=initrd{ca} {words} || goto again")?;
            writeln!(out, "initrd --name initrd {directory}/initrd || goto again")?;
            if boot.with_ca {
                writeln!(out, "initrd --name ca.cpio http://{http}/ca.cpio || goto again")?;
            }
            out.push_str("boot || goto again\n:again\nimgfree\n");
            again(out, limits::WAIT_SCRIPT_SECONDS, http, &script)
        }
    }
}

fn again(out: &mut String, seconds: u64, http: SocketAddrV4, script: &str) -> std::fmt::Result {
    writeln!(out, ":wait\nsleep {seconds}\nchain --replace http://{http}/{script} || goto wait")
}

fn grub(out: &mut String, action: &Action<'_>, mac: Mac, http: SocketAddrV4) -> std::fmt::Result {
    out.push_str("set timeout=0\n");
    match action {
        Action::Again { seconds, why } => {
            writeln!(out, "echo 'Bootstorm: {}; asking again in {seconds} s'", text(why))?;
            writeln!(out, "sleep {seconds}\nconfigfile /{}", grub_name(mac))
        }
        Action::Local => {
            out.push_str("echo 'Bootstorm: booting from the disk'\n");
            out.push_str(
                "if [ \"$grub_platform\" = pc ]; then\n  set root=(hd0)\n  chainloader +1\n  boot\nfi\nexit\n",
            );
            Ok(())
        }
        Action::Agent(boot) => {
            let directory = format!("/environment/{}", boot.architecture);
            let ca = if boot.with_ca { " /ca.cpio" } else { "" };
            writeln!(out, "echo 'Bootstorm: {}'", text(boot.title))?;
            writeln!(out, "linux {directory}/kernel {}", words(boot, mac, http))?;
            writeln!(out, "initrd {directory}/initrd{ca}\nboot")?;
            writeln!(out, "sleep {}\nconfigfile /{}", limits::WAIT_SCRIPT_SECONDS, grub_name(mac))
        }
    }
}

/// GRUB's first file, the same for every machine: it names the machine's own.
pub const GRUB_FIRST: &str = "set timeout=0\nconfigfile /grub/grub.cfg-$net_default_mac\nexit\n";
/// Name of GRUB's first file.
pub const GRUB_FIRST_NAME: &str = "grub/grub.cfg";

/// Name of a machine's GRUB file.
pub fn grub_name(mac: Mac) -> String {
    format!("{GRUB_FIRST_NAME}-{mac}")
}

/// The interface that a GRUB file's name is for.
pub fn grub_mac(name: &str) -> Option<Mac> {
    name.strip_prefix(GRUB_FIRST_NAME)?.strip_prefix('-')?.parse().ok()
}

fn words(boot: &AgentBoot<'_>, mac: Mac, http: SocketAddrV4) -> String {
    let mut words: Vec<String> = boot.command_line.iter().filter(|one| is_word(one)).cloned().collect();
    words.push(format!("bootstorm.rack={}", boot.agents));
    words.push(format!("bootstorm.http={http}"));
    words.push(format!("bootstorm.claim={}", boot.claim));
    words.push(format!("bootstorm.mac={mac}"));
    words.extend(boot.address.map(|(address, bits)| format!("bootstorm.ip={address}/{bits}")));
    words.extend(boot.gateway.map(|gateway| format!("bootstorm.gateway={gateway}")));
    words.join(" ")
}

/// Whether a word means itself to iPXE, GRUB and the kernel.
fn is_word(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+=,:/@%".contains(&byte);
    !word.is_empty() && word.len() <= limits::SCRIPT_TEXT_MAX && word.bytes().all(plain)
}

/// A text for people with nothing in it that a loader would act on.
fn text(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || " ._-+=,:/@()".contains(*c);
    text.chars().filter(plain).take(limits::SCRIPT_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);

    fn http() -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 5248)
    }

    fn agent(command_line: &[String]) -> Action<'_> {
        Action::Agent(AgentBoot {
            title: "n001 starts its agent",
            architecture: Architecture::Amd64,
            command_line,
            agents: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 5249),
            claim: "00112233445566778899aabbccddeeff",
            address: Some((Ipv4Addr::new(10, 0, 0, 9), 24)),
            gateway: None,
            with_ca: true,
        })
    }

    #[test]
    fn the_agent_s_script_word_for_word() {
        let words = ["console=ttyS0,115200".to_string()];
        let expected = "#!ipxe\n\
            echo Bootstorm: n001 starts its agent\n\
            kernel --name kernel http://10.0.0.1:5248/environment/amd64/kernel initrd=initrd initrd=ca.cpio \
            console=ttyS0,115200 bootstorm.rack=10.0.0.1:5249 bootstorm.http=10.0.0.1:5248 \
            bootstorm.claim=00112233445566778899aabbccddeeff bootstorm.mac=52:54:00:ab:cd:ef \
            bootstorm.ip=10.0.0.9/24 || goto again\n\
            initrd --name initrd http://10.0.0.1:5248/environment/amd64/initrd || goto again\n\
            initrd --name ca.cpio http://10.0.0.1:5248/ca.cpio || goto again\n\
            boot || goto again\n:again\nimgfree\n\
            :wait\nsleep 10\nchain --replace http://10.0.0.1:5248/boot.ipxe?mac=52-54-00-ab-cd-ef || goto wait\n";
        assert_eq!(write(Format::Ipxe, &agent(&words), MAC, http()), expected);
    }

    #[test]
    fn t10_nothing_from_outside_is_a_command() {
        let words = ["quiet", "${net0/ip}", "a b", "x;reboot", "y\nshell", "'z'", "${", "|"].map(String::from);
        for format in [Format::Ipxe, Format::Grub] {
            let script = write(format, &agent(&words), MAC, http());
            assert!(script.contains("quiet bootstorm.rack="), "{script}");
            assert!(!script.contains("shell") && !script.contains("net0") && !script.contains("reboot"), "{script}");
            let why = "n1\nshell ${x} ' || boot";
            let script = write(format, &Action::Again { seconds: 10, why }, MAC, http());
            assert!(script.contains("n1shell x   boot") || script.contains("n1shell x  boot"), "{script}");
        }
    }

    #[test]
    fn a_mac_s_grub_file_is_found_by_its_name() {
        assert_eq!(grub_mac(&grub_name(MAC)), Some(MAC));
        assert_eq!(grub_mac("grub/grub.cfg"), None);
        assert_eq!(grub_mac("grub/grub.cfg-01-52-54-00"), None);
    }
}
