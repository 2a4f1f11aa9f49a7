//! Bare machines: QEMU guests that netboot first and start from their disk when the network says so.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::accelerator::Accelerator;
use super::network::Network;
use super::process::{self, Process};
use super::{Error, limits, wait};

/// What a guest starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS with the network card's iPXE ROM.
    Bios,
    /// OVMF with the network card's iPXE ROM. Its variables are the guest's own.
    Uefi,
}

impl Firmware {
    /// One word for tables and names.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

/// A guest's hardware.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Name, also the serial number of machine and disk.
    pub name: String,
    /// Firmware.
    pub firmware: Firmware,
    /// Last octet of its MAC address; unique in one network.
    pub number: u8,
    /// Octets of its one disk.
    pub disk_bytes: u64,
}

impl Hardware {
    /// A guest of the usual size.
    pub fn new(name: &str, firmware: Firmware, number: u8) -> Self {
        Self { name: name.to_owned(), firmware, number, disk_bytes: limits::GUEST_DISK_BYTES }
    }

    /// Its MAC address, lower case with colons.
    pub fn mac(&self) -> String {
        format!("52:54:00:77:00:{:02x}", self.number)
    }

    /// Its SMBIOS UUID.
    pub fn uuid(&self) -> String {
        format!("b0075702-0000-4000-8000-5254007700{:02x}", self.number)
    }
}

/// A guest, on or off. Dropping it cuts its power and removes its disk.
#[derive(Debug)]
pub struct Guest {
    /// What it is.
    pub hardware: Hardware,
    network: Arc<Network>,
    accelerator: Accelerator,
    directory: PathBuf,
    tap: String,
    running: Option<Process>,
}

impl Guest {
    /// Makes the guest, switched off, with an empty disk and fresh firmware variables in a directory below `state`.
    ///
    /// # Errors
    /// When its files or its tap device cannot be made.
    pub fn new(
        hardware: Hardware,
        network: Arc<Network>,
        accelerator: Accelerator,
        state: &Path,
    ) -> Result<Self, Error> {
        let directory = state.join(&hardware.name);
        let made = fs::create_dir_all(&directory)
            .and_then(|()| File::create(directory.join("disk.raw"))?.set_len(hardware.disk_bytes));
        made.map_err(|source| Error::File { path: directory.clone(), source })?;
        if hardware.firmware == Firmware::Uefi {
            let variables = Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd");
            fs::copy(variables, directory.join("variables.fd"))
                .map_err(|source| Error::File { path: variables.to_owned(), source })?;
        }
        let tap = network.add_tap()?;
        Ok(Self { hardware, network, accelerator, directory, tap, running: None })
    }

    /// Switches it on; nothing happens if it is on. Must be called from a thread that outlives the guest's run.
    ///
    /// # Errors
    /// When QEMU cannot be started.
    pub fn power_on(&mut self) -> Result<(), Error> {
        if self.is_on() {
            return Ok(());
        }
        let _stale = fs::remove_file(self.monitor());
        self.running = Some(Process::start(self.qemu(), &self.directory.join("qemu.log"))?);
        Ok(())
    }

    /// Cuts its power; nothing happens if it is off.
    pub fn power_off(&mut self) {
        if let Some(mut process) = self.running.take() {
            process.kill();
        }
    }

    /// Whether it is on. A guest that switched itself off is off.
    pub fn is_on(&mut self) -> bool {
        if self.running.as_mut().is_some_and(|process| process.ended().is_some()) {
            self.running = None;
        }
        self.running.is_some()
    }

    /// The serial console since the guest was made, across power cycles.
    pub fn console(&self) -> PathBuf {
        self.directory.join("console.log")
    }

    /// Waits until the console has shown `text`.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `deadline`; [`Error::Ended`] if the guest goes off before.
    pub fn wait_for_console(&mut self, text: &str, deadline: Duration) -> Result<(), Error> {
        let console = self.console();
        wait::until(&format!("`{text}` on the console of {}", self.hardware.name), deadline, || {
            if fs::read(&console).is_ok_and(|shown| String::from_utf8_lossy(&shown).contains(text)) {
                return Ok(Some(()));
            }
            match self.running.as_mut().and_then(Process::ended) {
                Some(status) => Err(Error::Ended {
                    log: self.directory.join("qemu.log"),
                    status,
                    tail: process::tail(&self.directory.join("qemu.log")),
                }),
                None => Ok(None),
            }
        })
    }

    /// Sends one command without arguments to QEMU's monitor (QMP), such as `system_powerdown` or `query-status`, and
    /// returns the answer's line.
    ///
    /// # Errors
    /// When the guest is off or the monitor does not answer.
    pub fn monitor_command(&self, command: &str) -> Result<String, Error> {
        let talk = || {
            let stream = UnixStream::connect(self.monitor())?;
            stream.set_read_timeout(Some(limits::POWER_REQUEST))?;
            let (mut out, mut lines) = (&stream, BufReader::new(&stream).lines());
            let mut line = || lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()));
            line()?;
            writeln!(out, r#"{{"execute":"qmp_capabilities"}}"#)?;
            line()?;
            writeln!(out, r#"{{"execute":"{command}"}}"#)?;
            loop {
                let answer = line()?;
                if !answer.starts_with(r#"{"timestamp""#) {
                    return Ok(answer);
                }
            }
        };
        talk().map_err(|source| Error::File { path: self.monitor(), source })
    }

    fn monitor(&self) -> PathBuf {
        self.directory.join("monitor")
    }

    fn qemu(&self) -> std::process::Command {
        let Hardware { name, firmware, .. } = &self.hardware;
        let file = |name: &str| self.directory.join(name).display().to_string();
        let mut qemu = self.network.command("qemu-system-x86_64");
        qemu.args(["-name", name, "-machine", "q35", "-nodefaults", "-display", "none"]);
        qemu.args(self.accelerator.arguments());
        qemu.args(["-m", &limits::GUEST_MEMORY_MIB.to_string(), "-smp", &limits::GUEST_CPUS.to_string()]);
        qemu.args(["-uuid", &self.hardware.uuid()]);
        qemu.args(["-smbios", &format!("type=1,manufacturer=Bootstorm,product=lab,serial={name}")]);
        qemu.args(["-qmp", &format!("unix:{},server=on,wait=off", file("monitor"))]);
        qemu.args(["-chardev", &format!("file,id=console,path={},append=on", file("console.log"))]);
        qemu.args(["-serial", "chardev:console"]);
        if *firmware == Firmware::Uefi {
            qemu.args(["-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"]);
            qemu.args(["-drive", &format!("if=pflash,format=raw,file={}", file("variables.fd"))]);
        }
        // A BIOS asks the network first at every start, as in a rack whose firmware was set up once: the server decides
        // each boot. A UEFI guest has its own boot order, which QEMU's would overwrite at every start: its empty disk fails
        // at once, and after the first deployment the order is the one that the agent has left.
        let index = |place: u8| match firmware {
            Firmware::Bios => format!(",bootindex={place}"),
            Firmware::Uefi => String::new(),
        };
        qemu.args(["-netdev", &format!("tap,id=n0,ifname={},script=no,downscript=no", self.tap)]);
        qemu.args(["-device", &format!("virtio-net-pci,netdev=n0,mac={}{}", self.hardware.mac(), index(1))]);
        // Zeroes written by the guest leave holes; nothing of a guest needs to survive the host.
        let disk = "if=none,id=d0,format=raw,cache=unsafe,discard=unmap,detect-zeroes=unmap,file=";
        qemu.args(["-drive", &format!("{disk}{}", file("disk.raw"))]);
        qemu.args(["-device", &format!("virtio-blk-pci,drive=d0,serial={name}{}", index(2))]);
        qemu.args(["-device", "virtio-rng-pci"]);
        qemu
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.power_off();
        // The logs stay for whoever keeps the directory.
        let _kept_elsewhere = fs::remove_file(self.directory.join("disk.raw"));
    }
}
