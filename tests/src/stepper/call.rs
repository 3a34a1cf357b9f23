//! A system call, named so that it is the same one in every run: by what it is, what it is about, and the how manieth
//! of these.

use std::{fmt, fs, os::unix::fs::FileExt, path::Path};

use libc::{c_long, pid_t};

use super::ptrace::Registers;

/// A system call of the daemon's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// Its name, such as `openat`.
    pub name: String,
    /// The file that it is about, if it is about one, numbers left out that differ between runs: `socket`, `/dev/loop`.
    pub target: String,
    /// Which one of those since stepping began: 1 is the first.
    pub nth: usize,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.name, self.target, self.nth)
    }
}

impl Call {
    /// The call that a thread is about to make, as the first of its sort. Files below `home` are named from there.
    pub(super) fn of(process: pid_t, registers: &Registers, home: &Path) -> Self {
        let (name, about) = name(registers.number());
        let arguments = registers.arguments();
        let target = match about {
            About::Nothing => String::new(),
            About::Descriptor => descriptor(process, arguments[0]),
            About::Path(argument) => path(process, arguments[argument]).unwrap_or_default(),
        };
        let target = target.strip_prefix(&*home.to_string_lossy()).unwrap_or(&target);
        Self {
            name,
            target: lasting(target),
            nth: 1,
        }
    }
}

/// What a call's arguments say that it is about.
#[derive(Clone, Copy)]
enum About {
    Nothing,
    Descriptor,
    /// The argument of this number is a path.
    Path(usize),
}

/// The calls that have a name here. Those of others are told by their numbers.
macro_rules! calls {
    ($($number:ident $name:literal $about:expr;)*) => {
        fn name(number: c_long) -> (String, About) {
            match number {
                $(libc::$number => ($name.to_owned(), $about),)*
                _ => (format!("call {number}"), About::Nothing),
            }
        }
    };
}

calls! {
    SYS_access "access" About::Path(0);
    SYS_bind "bind" About::Descriptor;
    SYS_brk "brk" About::Nothing;
    SYS_clock_gettime "clock_gettime" About::Nothing;
    SYS_clock_nanosleep "clock_nanosleep" About::Nothing;
    SYS_clone "clone" About::Nothing;
    SYS_clone3 "clone3" About::Nothing;
    SYS_close "close" About::Descriptor;
    SYS_connect "connect" About::Descriptor;
    SYS_epoll_ctl "epoll_ctl" About::Descriptor;
    SYS_epoll_wait "epoll_wait" About::Nothing;
    SYS_execve "execve" About::Path(0);
    SYS_exit "exit" About::Nothing;
    SYS_fallocate "fallocate" About::Descriptor;
    SYS_fchmod "fchmod" About::Descriptor;
    SYS_fcntl "fcntl" About::Descriptor;
    SYS_flock "flock" About::Descriptor;
    SYS_fstat "fstat" About::Descriptor;
    SYS_ftruncate "ftruncate" About::Descriptor;
    SYS_futex "futex" About::Nothing;
    SYS_getdents64 "getdents64" About::Descriptor;
    SYS_getpid "getpid" About::Nothing;
    SYS_getrandom "getrandom" About::Nothing;
    SYS_getsockname "getsockname" About::Descriptor;
    SYS_gettid "gettid" About::Nothing;
    SYS_ioctl "ioctl" About::Descriptor;
    SYS_kill "kill" About::Nothing;
    SYS_lseek "lseek" About::Descriptor;
    SYS_madvise "madvise" About::Nothing;
    SYS_mkdir "mkdir" About::Path(0);
    SYS_mkdirat "mkdirat" About::Path(1);
    SYS_mmap "mmap" About::Nothing;
    SYS_mprotect "mprotect" About::Nothing;
    SYS_munmap "munmap" About::Nothing;
    SYS_newfstatat "newfstatat" About::Path(1);
    SYS_open "open" About::Path(0);
    SYS_openat "openat" About::Path(1);
    SYS_openat2 "openat2" About::Path(1);
    SYS_pidfd_open "pidfd_open" About::Nothing;
    SYS_pidfd_send_signal "pidfd_send_signal" About::Nothing;
    SYS_pipe2 "pipe2" About::Nothing;
    SYS_poll "poll" About::Nothing;
    SYS_ppoll "ppoll" About::Nothing;
    SYS_prctl "prctl" About::Nothing;
    SYS_pread64 "pread64" About::Descriptor;
    SYS_pwrite64 "pwrite64" About::Descriptor;
    SYS_read "read" About::Descriptor;
    SYS_readlink "readlink" About::Path(0);
    SYS_readlinkat "readlinkat" About::Path(1);
    SYS_recvfrom "recvfrom" About::Descriptor;
    SYS_recvmsg "recvmsg" About::Descriptor;
    SYS_rename "rename" About::Path(0);
    SYS_renameat2 "renameat2" About::Path(1);
    SYS_rseq "rseq" About::Nothing;
    SYS_rt_sigaction "rt_sigaction" About::Nothing;
    SYS_rt_sigprocmask "rt_sigprocmask" About::Nothing;
    SYS_sched_getaffinity "sched_getaffinity" About::Nothing;
    SYS_sched_yield "sched_yield" About::Nothing;
    SYS_sendmsg "sendmsg" About::Descriptor;
    SYS_sendto "sendto" About::Descriptor;
    SYS_set_robust_list "set_robust_list" About::Nothing;
    SYS_setsockopt "setsockopt" About::Descriptor;
    SYS_sigaltstack "sigaltstack" About::Nothing;
    SYS_socket "socket" About::Nothing;
    SYS_stat "stat" About::Path(0);
    SYS_statfs "statfs" About::Path(0);
    SYS_statx "statx" About::Path(1);
    SYS_unlink "unlink" About::Path(0);
    SYS_unlinkat "unlinkat" About::Path(1);
    SYS_vfork "vfork" About::Nothing;
    SYS_waitid "waitid" About::Nothing;
    SYS_wait4 "wait4" About::Nothing;
    SYS_write "write" About::Descriptor;
    SYS_writev "writev" About::Descriptor;
}

/// What a descriptor is open on. A socket that does not wait says so: its calls are not interrupted.
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

/// A path in the process's memory.
fn path(process: pid_t, address: u64) -> Option<String> {
    let memory = fs::File::open(format!("/proc/{process}/mem")).ok()?;
    // It may end with the page.
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

/// Without the numbers of what the kernel numbers as it likes: sockets and pipes, loop devices, descriptors in paths.
fn lasting(target: &str) -> String {
    if let Some((kind, _)) = target.split_once(":[").filter(|_| !target.starts_with("anon_inode")) {
        return kind.to_owned();
    }
    let mut text = String::new();
    let mut rest = target;
    for mark in ["/proc/self/fd/", "loop"] {
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
    fn what_differs_between_runs_is_left_out_of_a_name() {
        for (target, expected) in [
            ("socket:[123]", "socket"),
            ("anon_inode:[eventfd]", "anon_inode:[eventfd]"),
            ("/dev/loop7", "/dev/loop"),
            ("/sys/block/loop12/ro", "/sys/block/loop/ro"),
            ("/proc/self/fd/9", "/proc/self/fd/"),
            ("socket that does not wait:[5]", "socket that does not wait"),
            ("/run/vbd-3-51712.record", "/run/vbd-3-51712.record"),
        ] {
            assert_eq!(lasting(target), expected);
        }
    }
}
