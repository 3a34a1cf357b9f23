//! System call with a name that is the same in every run: the call's name, its target, and its number among equal ones.

use std::{fmt, fs, os::unix::fs::FileExt, path::Path};

use libc::{c_long, pid_t};

use super::ptrace::Registers;

/// System call of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// Name, such as `openat`.
    pub name: String,
    /// File of the call, if any, without numbers that differ between runs: `socket`, `/dev/loop`.
    pub target: String,
    /// Number among equal calls since the start of the tracing: 1 is the first.
    pub nth: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.name, self.target, self.nth)
    }
}

impl Call {
    /// Returns true if the daemon makes such a call for each process of the host, and this is not one of the first two.
    pub fn is_of_another_process(&self) -> bool {
        self.target.starts_with("/proc//") && self.nth > 2
    }

    /// Returns the call that a thread is about to make, with number 1. Files below `home` are named relative to it.
    pub(super) fn of(process: pid_t, registers: &Registers, home: &Path) -> Self {
        let (name, about) = name(registers.number());
        let arguments = registers.arguments();
        let target = match about {
            About::Nothing => String::new(),
            About::Descriptor => descriptor(process, arguments[0]),
            About::Child if arguments[2] & libc::WNOHANG as u64 != 0 => "that does not wait".to_owned(),
            About::Child => String::new(),
            About::Path(argument) => path(process, arguments[argument]).unwrap_or_default(),
        };
        let target = target.strip_prefix(&*home.to_string_lossy()).unwrap_or(&target);
        Self {
            name,
            target: without_numbers(target),
            nth: 1,
        }
    }
}

/// Argument that names a call's target.
#[derive(Clone, Copy)]
enum About {
    Nothing,
    Descriptor,
    /// Path, in the argument of this number.
    Path(usize),
    /// Child process; the third argument has the flag not to wait.
    Child,
}

/// Defines the names and targets of calls. Other calls get their numbers as names.
macro_rules! calls {
    ($($about:expr => $($number:ident)*;)*) => {
        fn name(number: c_long) -> (String, About) {
            match number {
                $($(libc::$number => (stringify!($number).replacen("SYS_", "", 1), $about),)*)*
                _ => (format!("call {number}"), About::Nothing),
            }
        }
    };
}

calls! {
    About::Nothing => SYS_brk SYS_clock_gettime SYS_clock_nanosleep SYS_clone SYS_clone3 SYS_epoll_wait SYS_exit
        SYS_futex SYS_getpid SYS_getrandom SYS_gettid SYS_kill SYS_madvise SYS_mmap SYS_mprotect SYS_munmap
        SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_poll SYS_ppoll SYS_prctl SYS_restart_syscall SYS_rseq
        SYS_rt_sigaction SYS_rt_sigprocmask SYS_sched_getaffinity SYS_sched_yield SYS_set_robust_list SYS_sigaltstack
        SYS_socket SYS_vfork SYS_waitid;
    About::Child => SYS_wait4;
    About::Descriptor => SYS_bind SYS_close SYS_connect SYS_epoll_ctl SYS_fallocate SYS_fchmod SYS_fcntl SYS_flock
        SYS_fstat SYS_ftruncate SYS_getdents64 SYS_getsockname SYS_ioctl SYS_lseek SYS_pread64 SYS_pwrite64 SYS_read
        SYS_recvfrom SYS_recvmsg SYS_sendmsg SYS_sendto SYS_setsockopt SYS_write SYS_writev;
    About::Path(0) => SYS_access SYS_execve SYS_mkdir SYS_open SYS_readlink SYS_rename SYS_stat SYS_statfs SYS_unlink;
    About::Path(1) => SYS_mkdirat SYS_newfstatat SYS_openat SYS_openat2 SYS_readlinkat SYS_renameat2 SYS_statx
        SYS_unlinkat;
}

/// Returns a descriptor's target. Non-blocking sockets are marked, because signals do not interrupt their calls.
fn descriptor(process: pid_t, number: u64) -> String {
    // Descriptors are ints, whatever the upper half of the register holds.
    let number = number as u32;
    let Ok(open) = fs::read_link(format!("/proc/{process}/fd/{number}")) else {
        return String::new();
    };
    let open = open.to_string_lossy().into_owned();
    let facts = fs::read_to_string(format!("/proc/{process}/fdinfo/{number}")).unwrap_or_default();
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| libc::c_int::from_str_radix(flags.trim(), 8).ok());
    if open.starts_with("socket:") && flags.is_some_and(|flags| flags & libc::O_NONBLOCK != 0) {
        return open.replacen("socket", "socket that does not wait", 1);
    }
    open
}

/// Reads a path in the process's memory.
fn path(process: pid_t, address: u64) -> Option<String> {
    let memory = fs::File::open(format!("/proc/{process}/mem")).ok()?;
    // The mapping may end with the page.
    let mut bytes = vec![0; 4096 - (address % 4096) as usize];
    memory.read_exact_at(&mut bytes, address).ok()?;
    if !bytes.contains(&0) {
        let mut more = [0; 4096];
        memory.read_exact_at(&mut more, address + bytes.len() as u64).ok()?;
        bytes.extend(more);
    }
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// Removes numbers that the kernel assigns: of sockets and pipes, loop devices, processes, and descriptors in paths.
fn without_numbers(target: &str) -> String {
    if let Some((kind, _)) = target.split_once(":[").filter(|_| !target.starts_with("anon_inode")) {
        return kind.to_owned();
    }
    let mut text = String::new();
    let mut rest = target;
    for mark in ["/proc/self/fd/", "/proc/", "loop"] {
        if let Some((before, after)) = rest.split_once(mark) {
            text += before;
            text += mark;
            rest = after.trim_start_matches(|letter: char| letter.is_ascii_digit());
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_name_omits_what_differs_between_runs() {
        for (target, expected) in [
            ("socket:[123]", "socket"),
            ("anon_inode:[eventfd]", "anon_inode:[eventfd]"),
            ("/dev/loop7", "/dev/loop"),
            ("/sys/block/loop12/ro", "/sys/block/loop/ro"),
            ("/proc/self/fd/9", "/proc/self/fd/"),
            ("/proc/77/stat", "/proc//stat"),
            ("socket that does not wait:[5]", "socket that does not wait"),
            ("/run/vbd-3-51712.record", "/run/vbd-3-51712.record"),
        ] {
            assert_eq!(without_numbers(target), expected);
        }
    }
}
