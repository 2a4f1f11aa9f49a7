//! seccomp: which system calls are left. What is not fails with EPERM, as if a capability were missing, so that a role which
//! meets it says so and goes on.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, TargetArch,
};

use crate::{Enforced, Error};

/// Which system calls are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// A rack's: files, sockets that are passed, datagram sockets of its own, the ring or epoll, threads and memory that is never
    /// both writable and executable. No process, no stream socket, no executing.
    Rack,
    /// A filter's from descriptor to descriptor: reading, writing, memory and the end. Not even opening.
    Filter,
    /// All but those that change the system, look into other processes or reach the kernel's younger parts: io_uring, bpf, perf,
    /// mounts, namespaces, modules, keys, ptrace, userfaultfd.
    Ordinary,
}

type Rules = BTreeMap<i64, Vec<Rule>>;

pub(crate) fn enter(calls: Calls) -> Result<Enforced, Error> {
    let denied = SeccompAction::Errno(libc::EPERM as u32);
    let filters = match calls {
        // The list comes last: it leaves no call by which another filter could be added.
        Calls::Rack => vec![without_clone3()?, only(rack()?, denied)?],
        Calls::Filter => vec![without_clone3()?, only(filter()?, denied)?],
        Calls::Ordinary => vec![without(every(NEVER.iter().copied()), denied)?],
    };
    for filter in &filters {
        match seccompiler::apply_filter(filter) {
            Ok(()) => {}
            // prctl(2): the kernel was built without filters.
            Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
                if error.raw_os_error() == Some(libc::EINVAL) || error.raw_os_error() == Some(libc::ENOSYS) =>
            {
                return Ok(Enforced::Missing);
            }
            Err(error) => return Err(Error::system("filtering system calls")(error)),
        }
    }
    Ok(Enforced::Fully)
}

/// A filter that lets pass what matches.
fn only(rules: Rules, otherwise: SeccompAction) -> Result<BpfProgram, Error> {
    compile(SeccompFilter::new(rules, otherwise, SeccompAction::Allow, architecture()?))
}

/// A filter that lets pass what does not match.
fn without(rules: Rules, denied: SeccompAction) -> Result<BpfProgram, Error> {
    compile(SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture()?))
}

/// clone3 has its flags in memory, where no filter can look: without it the C library takes clone, whose flags are an argument.
fn without_clone3() -> Result<BpfProgram, Error> {
    without(every([libc::SYS_clone3]), SeccompAction::Errno(libc::ENOSYS as u32))
}

fn compile(filter: Result<SeccompFilter, seccompiler::BackendError>) -> Result<BpfProgram, Error> {
    filter.and_then(BpfProgram::try_from).map_err(Error::system("making a filter of system calls"))
}

fn architecture() -> Result<TargetArch, Error> {
    TargetArch::try_from(std::env::consts::ARCH)
        .map_err(|_| Error::Architecture { architecture: std::env::consts::ARCH })
}

/// These, whatever their arguments.
fn every(calls: impl IntoIterator<Item = c_long>) -> Rules {
    calls.into_iter().map(|call| (number(call), Vec::new())).collect()
}

/// `c_long` is 64 bits wide on all platforms that seccompiler knows.
fn number(call: c_long) -> i64 {
    call
}

/// A condition on 32 bits of an argument.
fn argument(index: u8, operator: Op, value: u32) -> Result<Condition, Error> {
    Condition::new(index, Len::Dword, operator, value.into()).map_err(Error::system("making a filter of system calls"))
}

/// One rule: all of these conditions.
fn rule(conditions: impl IntoIterator<Item = Result<Condition, Error>>) -> Result<Rule, Error> {
    let conditions = conditions.into_iter().collect::<Result<Vec<_>, _>>()?;
    Rule::new(conditions).map_err(Error::system("making a filter of system calls"))
}

fn filter() -> Result<Rules, Error> {
    let mut rules = every(BASE.iter().copied());
    constrain_memory(&mut rules)?;
    constrain_threads(&mut rules)?;
    Ok(rules)
}

fn rack() -> Result<Rules, Error> {
    let mut rules = filter()?;
    rules.extend(every(FILES.iter().chain(SOCKETS).chain(LOOPS).copied()));
    #[cfg(target_arch = "x86_64")]
    rules.extend(every(OLD.iter().copied()));
    // Datagram sockets for transfers and look-ups: SOCK_CLOEXEC and SOCK_NONBLOCK are or'ed to the type.
    let datagram = Op::MaskedEq(0xf);
    let kind = libc::SOCK_DGRAM as u32;
    let of_family = |family: i32| rule([argument(0, Op::Eq, family as u32), argument(1, datagram.clone(), kind)]);
    rules.insert(libc::SYS_socket, vec![of_family(libc::AF_INET)?, of_family(libc::AF_INET6)?]);
    // Memory files for what is sent by reference, if they can never be executed.
    let not_executable = argument(1, Op::MaskedEq(libc::MFD_NOEXEC_SEAL.into()), libc::MFD_NOEXEC_SEAL);
    rules.insert(libc::SYS_memfd_create, vec![rule([not_executable])?]);
    // Blocking mode, close-on-exec, whether the log is a terminal, and an interface's index.
    let requests = [libc::FIONBIO, libc::FIOCLEX, libc::TCGETS, libc::SIOCGIFINDEX];
    let ioctl = requests.into_iter().map(|request| rule([argument(1, Op::Eq, request as u32)]));
    rules.insert(libc::SYS_ioctl, ioctl.collect::<Result<_, _>>()?);
    // Files in memory, which the driver sends from, if they can never be executed.
    let sealed = libc::MFD_NOEXEC_SEAL;
    rules.insert(libc::SYS_memfd_create, vec![rule([argument(1, Op::MaskedEq(sealed.into()), sealed)])?]);
    Ok(rules)
}

/// Memory is never executable: what a role runs was mapped before it entered.
fn constrain_memory(rules: &mut Rules) -> Result<(), Error> {
    let not_executable = Op::MaskedEq(libc::PROT_EXEC as u64);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(number(call), vec![rule([argument(2, not_executable.clone(), 0)])?]);
    }
    Ok(())
}

/// Threads, not processes; their names; signals to oneself, as `abort` sends one.
fn constrain_threads(rules: &mut Rules) -> Result<(), Error> {
    let thread = libc::CLONE_THREAD as u32;
    let is_thread = rule([argument(0, Op::MaskedEq(thread.into()), thread)])?;
    rules.insert(libc::SYS_clone, vec![is_thread]);
    const PR_SET_VMA: u32 = 0x5356_4d41;
    let options = [libc::PR_SET_NAME as u32, PR_SET_VMA];
    let prctl = options.into_iter().map(|option| rule([argument(0, Op::Eq, option)]));
    rules.insert(libc::SYS_prctl, prctl.collect::<Result<_, _>>()?);
    let own = rustix::process::getpid().as_raw_pid() as u32;
    rules.insert(libc::SYS_tgkill, vec![rule([argument(0, Op::Eq, own)])?]);
    // Reading limits only: the third argument is what would be set. Both halves of the pointer must be null.
    let nothing = |index| Condition::new(index, Len::Qword, Op::Eq, 0).map_err(Error::system("making a filter"));
    rules.insert(libc::SYS_prlimit64, vec![rule([argument(0, Op::Eq, 0), nothing(2)])?]);
    Ok(())
}

/// Octets in and out of what is open, memory, threads, time.
const BASE: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_dup,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setaffinity,
    libc::SYS_getcpu,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Asked by the other filter, which answers that there is none.
    libc::SYS_clone3,
];

/// Files below the directories that Landlock leaves.
const FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_flock,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_copy_file_range,
];

/// Sockets that are open, and those of datagrams.
const SOCKETS: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sendto,
    libc::SYS_sendfile,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendfile,
];

/// The ring and epoll.
const LOOPS: &[c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_ppoll,
];

/// What x86_64 has twice.
#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
];

/// What no role needs.
const NEVER: &[c_long] = &[
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_userfaultfd,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    libc::SYS_fanotify_init,
    libc::SYS_vhangup,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_a_rack_s_and_never_needed() {
        let rack = rack().unwrap();
        let both: Vec<_> = NEVER.iter().filter(|call| rack.contains_key(*call)).collect();
        // The ring is the rack's alone (threat model, T20).
        assert_eq!(both, [&libc::SYS_io_uring_setup, &libc::SYS_io_uring_enter, &libc::SYS_io_uring_register]);
        for call in [libc::SYS_execve, libc::SYS_execveat, libc::SYS_kill] {
            assert!(!rack.contains_key(&call), "{call}");
        }
        // Only with a flag: no rule would mean whatever the arguments.
        assert!(!rack[&libc::SYS_memfd_create].is_empty());
        assert!(!filter().unwrap().contains_key(&libc::SYS_openat));
    }
}
