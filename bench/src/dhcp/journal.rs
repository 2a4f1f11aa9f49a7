//! The rack's journal as the suite sees it: how often it syncs, and one with a million leases.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bootstorm_engine::Lease;
use bootstorm_journal::{Journal, OnDamage};
use bootstorm_snapshot::Mac;
use bootstorm_tests::lab::process::{self, Process};
use bootstorm_tests::lab::{Error, wait};

use super::clients::Client;
use super::is_installed;
use super::servers::{Ground, Kind, Server};
use crate::limits;
use crate::veth::{INTERFACE, Pin, SERVER, Servers, Side};

/// strace on the journal's thread. Other threads are left alone, so that they keep their speed.
#[derive(Debug)]
pub struct Counted {
    strace: Process,
    log: PathBuf,
}

impl Counted {
    /// Begins to count; `None` where strace is missing or may not look.
    ///
    /// # Errors
    /// When the rack has no such thread.
    pub fn start(rack: u32, place: &Path) -> Result<Option<Self>, Error> {
        let thread = wait::until("the journal's thread", limits::SERVER_START, || {
            let threads = fs::read_dir(format!("/proc/{rack}/task")).into_iter().flatten().flatten();
            let named =
                |path: &PathBuf| fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "journal");
            Ok(threads.map(|thread| thread.path()).find(named))
        })?;
        let id = thread.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !is_installed("strace") {
            return Ok(None);
        }
        let log = place.join("strace.log");
        let _fresh = fs::remove_file(&log);
        let mut strace = process::command("strace");
        strace.args(["-qq", "-e", "trace=fdatasync,fsync", "-p", &id, "-o"]).arg(&log);
        let mut strace = Process::start(strace, &place.join("strace.err"))?;
        let attached = wait::until("strace to attach", limits::SERVER_START, || {
            let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
            let traced = status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|id| id.trim() != "0"));
            Ok((traced || strace.ended().is_some()).then_some(traced))
        })?;
        Ok(attached.then_some(Self { strace, log }))
    }

    /// Ends it; how many calls it saw.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn finish(mut self) -> Result<u64, Error> {
        self.strace.stop();
        let text = fs::read_to_string(&self.log).map_err(|source| Error::File { path: self.log.clone(), source })?;
        Ok(text.lines().filter(|line| line.contains("sync(")).count() as u64)
    }
}

/// A data directory whose journal has many leases.
#[derive(Debug)]
pub struct Prepared {
    data: PathBuf,
}

/// The client whose lease is the first, as MAC address.
const FIRST: u64 = 0x02_00_4c_00_00_00;

/// By how much the leases outlive the one they are made from: none may end while its journal is made or measured.
const RELOADED_SECONDS: u64 = 86_400;

/// Makes it: one real lease is taken, and its record is repeated for others. `None` when the journal has no lease.
///
/// # Errors
/// When our server does not come up, or the journal is refused.
pub fn prepare(ground: &Ground<'_>, leases: u64) -> Result<Option<Prepared>, Error> {
    let data = {
        let Server::Ours(up) = ground.start(Kind::Ours, Client::Perfdhcp)? else { return Ok(None) };
        Client::Perfdhcp.load(ground.link, ground.options, 10.0, Duration::from_secs(1), limits::DHCP_PATIENCE)?;
        drop(up);
        ground.place.join("data")
    };
    let directory = data.join("rack/journal");
    let failed = |error: bootstorm_journal::Error| Error::Environment(format!("{}: {error}", directory.display()));
    let (mut journal, recovered) = Journal::open_directory(&directory, OnDamage::Refuse).map_err(failed)?;
    let mut records: Vec<Vec<u8>> = recovered.records().map(|(_, record)| record.to_vec()).collect();
    let Some(lease) = records.iter().find_map(|record| Lease::decode(record)) else { return Ok(None) };
    for number in 0..leases {
        let [_, _, mac @ ..] = (FIRST + number).to_be_bytes();
        // Behind the servers' own addresses, and beyond what is leased to others: leases outlive changes of ranges.
        let address = u32::from(SERVER).wrapping_add(0x1000).wrapping_add(u32::try_from(number).unwrap_or(u32::MAX));
        let until_unix_seconds = lease.until_unix_seconds + RELOADED_SECONDS;
        records.push(Lease { mac: Mac(mac), address: address.into(), until_unix_seconds, ..lease }.encode());
    }
    journal.compact(&records).map_err(failed)?;
    Ok(Some(Prepared { data }))
}

impl Prepared {
    /// Starts our server; seconds from its start until the first lease's client has an answer, `None` if it has none.
    ///
    /// # Errors
    /// When the server ends.
    pub fn first_answer(&self, ground: &Ground<'_>, pin: Pin) -> Result<Option<f64>, Error> {
        let mut servers = Servers::new(ground.link, "bootstorm", pin)?;
        let data = self.data.display().to_string();
        let begin = Instant::now();
        let arguments = ["up", "--data", &data, "--interface", INTERFACE].map(str::to_owned);
        servers.start(&ground.options.bootstorm, &arguments, &self.data.with_extension("log"))?;
        let [_, _, a, b, c, d, e, f] = FIRST.to_be_bytes();
        let mac = format!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        while begin.elapsed() < limits::RELOAD_PATIENCE {
            servers.check()?;
            let mut perfdhcp = ground.link.command(Side::Client, Path::new("perfdhcp"));
            perfdhcp.args(["-4", "-l", INTERFACE, "-b", &mac, "-R", "1", "-r", "20", "-n", "1", "-W", "50000"]);
            let output = perfdhcp.output().map_err(|source| Error::Start { command: "perfdhcp".to_owned(), source })?;
            let answer = String::from_utf8_lossy(&output.stdout);
            let received = answer.lines().find_map(|line| line.strip_prefix("received packets:")?.trim().parse().ok());
            if received.is_some_and(|packets: u64| packets > 0) {
                return Ok(Some(begin.elapsed().as_secs_f64()));
            }
        }
        Ok(None)
    }
}
