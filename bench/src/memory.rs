//! Memory of servers: what their processes alone hold, and what the kernel holds for their sockets.
//!
//! *Own* memory is anonymous and shared-anonymous pages and huge pages of all processes of a group, each page divided among
//! those that share it (`/proc/ID/smaps_rollup`: a forked worker counts once). Pages of files are left out: they are page
//! cache, which the kernel takes back when it likes. A case in which one server keeps a copy of what it sends in its own memory
//! and the other leaves that to the page cache adds the latter ([`crate::page_cache`]), for both.
//!
//! *Socket* memory is what `ss` calls skmem: the receive queue, the send queue, and what is reserved in advance for them.
//! Control groups could tell both at once, but version 1 counts TCP only where a limit was set before, and both versions
//! charge page cache to whoever read it first. A queue that holds pages of the page cache (`sendfile`) counts them, as a
//! queue that holds copies does: in both cases the pages cannot be taken back before the peer has acknowledged them.

use std::fs;

use bootstorm_tests::lab::{Error, process};

/// Octets that processes alone hold. Processes that ended meanwhile are left out.
pub fn own_bytes(processes: &[u32]) -> u64 {
    const FIELDS: [&str; 4] = ["Pss_Anon:", "Pss_Shmem:", "Shared_Hugetlb:", "Private_Hugetlb:"];
    processes.iter().filter_map(|id| read(*id, "smaps_rollup")).map(|text| kib(&text, &FIELDS) << 10).sum()
}

/// Octets of processes' resident memory (`VmRSS`), files' pages included. Processes that ended meanwhile are left out.
pub fn resident_bytes(processes: &[u32]) -> u64 {
    processes.iter().filter_map(|id| read(*id, "status")).map(|text| kib(&text, &["VmRSS:"]) << 10).sum()
}

/// Octets that the kernel holds for the established TCP sockets of a local port, in this network namespace.
///
/// # Errors
/// When `ss` (iproute2) is missing or shows none.
pub fn socket_bytes(port: u16) -> Result<u64, Error> {
    let mut ss = process::command("ss");
    ss.args(["-tmnH", "state", "established", "sport", "=", &format!(":{port}")]);
    let answer = process::run(&mut ss)?;
    let sockets: Vec<u64> = answer.split("skmem:(").skip(1).filter_map(skmem).collect();
    if sockets.is_empty() {
        let command = format!("ss sport = :{port}");
        return Err(Error::Answer { command, missing: "an established socket with its skmem".to_owned(), answer });
    }
    Ok(sockets.iter().sum())
}

/// `r0,rb131072,t0,tb2626560,f4096,w8192,o0,bl0,d0) …` → octets of the receive queue (`r`), reserved (`f`), send queue
/// (`w`) and backlog (`bl`). `rb` and `tb` are bounds; what `t` counts is on its way out and in `w` already.
fn skmem(text: &str) -> Option<u64> {
    let fields = text.split_once(')')?.0.split(',').filter_map(|field| {
        let digits = field.find(|c: char| c.is_ascii_digit())?;
        let (name, value) = field.split_at(digits);
        Some((name, value.parse::<u64>().ok()?))
    });
    Some(fields.filter(|(name, _)| matches!(*name, "r" | "f" | "w" | "bl")).map(|(_, value)| value).sum())
}

fn read(id: u32, file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/{id}/{file}")).ok()
}

/// The sum of the fields, in KiB as the kernel writes them.
fn kib(text: &str, fields: &[&str]) -> u64 {
    let of = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        fields.contains(&name).then(|| value.trim().trim_end_matches(" kB").parse::<u64>().ok())?
    };
    text.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_count_and_bounds_do_not() {
        let text = "r10,rb131072,t5,tb2626560,f4096,w8192,o0,bl3,d7) rto:204\n";
        assert_eq!(skmem(text), Some(10 + 4096 + 8192 + 3));
        assert_eq!(skmem("r10,rb1"), None);
    }

    #[test]
    fn only_the_fields_asked_for_are_added() {
        let text = "Rss:  900 kB\nPss_Anon:\t 12 kB\nPss_File:  70 kB\nPrivate_Hugetlb:   2048 kB\n";
        assert_eq!(kib(text, &["Pss_Anon:", "Private_Hugetlb:"]), 2060);
    }

    #[test]
    fn memory_that_is_written_to_is_own_memory() {
        let this = [std::process::id()];
        let before = own_bytes(&this);
        let block = vec![1_u8; 64 << 20];
        let after = own_bytes(&this);
        assert!(std::hint::black_box(&block).iter().all(|octet| *octet == 1));
        assert!(after >= before + (60 << 20), "{before} and then {after}");
        assert!(resident_bytes(&this) >= after / 2);
    }
}
