//! System calls: which are made, and which only somebody makes who has taken a thread over.
//!
//! A thread has two filters. One allows what is listed here and answers all else with ENOSYS, as a
//! kernel that does not know the call: libraries that try something new fall back to what they did
//! before. The other kills the process for calls that nothing in it ever makes.
//!
//! The kernel keeps a map of calls that are allowed whatever their arguments (since 5.11), so these
//! cost next to nothing; only calls with conditions run through the list.
//!
//! A call that is missed shows up as "Function not implemented"; `strace -f` on a switch says which
//! it was.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

/// Carriers: frames, waking up and being woken, memory, and an end.
const EVERYBODY: &[c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_io_uring_enter,
    // A signal handler tells the thread for signals over a socket, from whichever thread it runs in.
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_epoll_ctl,
    libc::SYS_ppoll,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_getcpu,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    // What a snapshot alone referred to is closed and unmapped by whoever lets go of it last.
    libc::SYS_close,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_brk,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// Control: sockets and what comes over them, threads, files that go with the switch.
const CONTROL: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_readlinkat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_eventfd2,
    // Files in which front-ends keep for later what is in flight.
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    // A thread that starts; a filter on top of this one.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_seccomp,
];

/// Other programs, other processes, other rights, the kernel itself, and ways around this filter.
const HOSTILE: &[c_long] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_personality,
    libc::SYS_listen,
    libc::SYS_bind,
];

/// For threads that carry frames.
pub(super) fn carrier() -> Result<BpfProgram, String> {
    allowing(everybody()?)
}

/// For the control thread, and for as long as the threads it starts have not narrowed theirs.
pub(super) fn control(connects: bool) -> Result<BpfProgram, String> {
    let mut rules = everybody()?;
    rules.extend(CONTROL.iter().map(|&call| (call, Vec::new())));
    rules.insert(libc::SYS_fcntl, one_of(1, FCNTL)?);
    rules.insert(libc::SYS_ioctl, one_of(1, IOCTL)?);
    rules.insert(libc::SYS_prctl, one_of(0, PRCTL)?);
    // Threads and no processes. What clone3 is to do stands in memory, where a filter cannot see
    // it; libraries that find it missing use clone.
    rules.insert(libc::SYS_clone, vec![thread()?]);
    if connects {
        rules.insert(libc::SYS_socket, vec![rule(vec![unix()?])?]);
        rules.insert(libc::SYS_connect, Vec::new());
    }
    allowing(rules)
}

/// Kills the process for what is never called.
pub(super) fn hostile() -> Result<BpfProgram, String> {
    let mut rules: Rules = HOSTILE.iter().map(|&call| (call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![rule(vec![executable(true)?])?]);
    }
    let elsewhere = argument(0, SeccompCmpOp::Ne, std::process::id().into())?;
    rules.insert(libc::SYS_tgkill, vec![rule(vec![elsewhere])?]);
    let foreign = argument(0, SeccompCmpOp::Ne, AF_UNIX)?;
    rules.insert(libc::SYS_socket, vec![rule(vec![foreign])?]);
    compile(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

const AF_UNIX: u64 = libc::AF_UNIX.cast_unsigned() as u64;
const PROT_EXEC: u64 = libc::PROT_EXEC.cast_unsigned() as u64;

const FCNTL: &[i32] = &[
    libc::F_GETFD,
    libc::F_SETFD,
    libc::F_GETFL,
    libc::F_SETFL,
    libc::F_DUPFD_CLOEXEC,
    libc::F_GET_SEALS,
    libc::F_ADD_SEALS,
];

/// Non-blocking, a terminal or not, the offloads of a tap (`TUNSETOFFLOAD`), and what `vhost::kernel` asks of a vhost-net device.
const IOCTL: &[i32] = &[
    0x5421,
    0x5401,
    0x4004_54d0,
    0x8008_af00_u32.cast_signed(),
    0x4008_af00,
    0xaf01,
    0x4008_af03,
    0x4008_af10,
    0x4028_af11,
    0x4008_af12,
    0x4008_af20,
    0x4008_af21,
    0x4008_af30,
];

/// A thread's name, and what a filter on top of this one needs.
const PRCTL: &[i32] = &[libc::PR_SET_NAME, libc::PR_SET_NO_NEW_PRIVS];

fn everybody() -> Result<Rules, String> {
    let mut rules: Rules = EVERYBODY.iter().map(|&call| (call, Vec::new())).collect();
    // Memory, also that which takes the place of a file that shrank; never code.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(vec![executable(false)?])?]);
    }
    // How a process ends itself.
    let here = argument(0, SeccompCmpOp::Eq, std::process::id().into())?;
    rules.insert(libc::SYS_tgkill, vec![rule(vec![here])?]);
    Ok(rules)
}

/// The third argument of mmap and mprotect.
fn executable(yes: bool) -> Result<SeccompCondition, String> {
    let masked = SeccompCmpOp::MaskedEq(PROT_EXEC);
    argument(2, masked, if yes { PROT_EXEC } else { 0 })
}

fn unix() -> Result<SeccompCondition, String> {
    argument(0, SeccompCmpOp::Eq, AF_UNIX)
}

fn thread() -> Result<SeccompRule, String> {
    let thread = libc::CLONE_THREAD.cast_unsigned().into();
    rule(vec![argument(0, SeccompCmpOp::MaskedEq(thread), thread)?])
}

/// One of these values in an argument; numbers of requests have 32 bits.
fn one_of(index: u8, values: &[i32]) -> Result<Vec<SeccompRule>, String> {
    values
        .iter()
        .map(|value| {
            let value = value.cast_unsigned().into();
            rule(vec![argument(index, SeccompCmpOp::Eq, value)?])
        })
        .collect()
}

fn argument(index: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(index, SeccompCmpArgLen::Dword, compare, value)
        .map_err(|error| error.to_string())
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| error.to_string())
}

fn allowing(rules: Rules) -> Result<BpfProgram, String> {
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    compile(rules, unknown, SeccompAction::Allow)
}

fn compile(
    rules: Rules,
    other: SeccompAction,
    listed: SeccompAction,
) -> Result<BpfProgram, String> {
    let processor = std::env::consts::ARCH.try_into();
    let processor = processor.map_err(|error: seccompiler::BackendError| error.to_string())?;
    let filter = SeccompFilter::new(rules, other, listed, processor);
    filter
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
}
