//! Errors that the kernel may return for valid calls.

use std::fmt;

use libc::c_int;

use super::{Call, Injection};

/// Error of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the kernel's own")]
pub enum Errno {
    EINTR,
    ENOMEM,
    EMFILE,
    ENOSPC,
    EIO,
    EPERM,
}

use Errno::{EINTR, EIO, EMFILE, ENOMEM, ENOSPC, EPERM};

impl Errno {
    pub(super) fn number(self) -> c_int {
        match self {
            EINTR => libc::EINTR,
            ENOMEM => libc::ENOMEM,
            EMFILE => libc::EMFILE,
            ENOSPC => libc::ENOSPC,
            EIO => libc::EIO,
            EPERM => libc::EPERM,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Returns the faults of a call. None: it cannot fail, or no program can handle its failure.
pub fn faults(call: &Call) -> Vec<Injection> {
    let on = |part: &str| call.target.contains(part);
    let may: &[Errno] =
        match call.name.as_str() {
            // Wakers of threads: their counters neither block nor overflow.
            "read" | "write" if on("eventfd") => &[],
            // The kernel closes the descriptor even if it returns an error, so the fault comes after the call.
            "close" => return [EINTR, EIO, ENOSPC].map(Injection::FailAfter).to_vec(),
            "wait4" if on("does not wait") => &[],
            // A futex always wakes, and only the standard library waits for one.
            "epoll_wait" | "poll" | "ppoll" | "clock_nanosleep" | "waitid" | "wait4" | "flock" => &[EINTR],
            // EINTR occurs where open waits for another process that has the device open; EIO and ENOMEM come from the
            // file system.
            "open" | "openat" | "openat2" => &[EINTR, ENOMEM, EMFILE, ENOSPC, EIO, EPERM],
            "socket" | "pipe2" | "pidfd_open" => &[ENOMEM, EMFILE, EPERM],
            "read" | "pread64" | "recvfrom" | "recvmsg" => &[EINTR, ENOMEM, EIO],
            "write" | "writev" | "pwrite64" | "sendto" | "sendmsg" if on("socket") => &[EINTR, ENOMEM, EPERM],
            "write" | "writev" | "pwrite64" => &[EINTR, ENOMEM, ENOSPC, EIO, EPERM],
            // Those of loop devices wait for their locks killably, and no other signal interrupts them
            // (drivers/block/loop.c, `loop_global_lock_killable`).
            "ioctl" => &[ENOMEM, ENOSPC, EIO, EPERM],
            "epoll_ctl" => &[ENOMEM, ENOSPC],
            "mmap" | "mprotect" => &[ENOMEM],
            "clone" | "clone3" | "vfork" => &[ENOMEM, EPERM],
            "bind" | "connect" | "setsockopt" => &[ENOMEM, EPERM],
            "access" | "fstat" | "newfstatat" | "stat" | "statx" | "statfs" | "readlink" | "readlinkat"
            | "getdents64" => &[ENOMEM, EIO, EPERM],
            "unlink" | "unlinkat" | "rename" | "renameat2" | "mkdir" | "mkdirat" | "ftruncate" | "fallocate"
            | "fchmod" => &[ENOMEM, ENOSPC, EIO, EPERM],
            "execve" => &[ENOMEM, EIO, EPERM],
            "kill" | "pidfd_send_signal" => &[EPERM],
            // Queries of the process and its own settings do not fail with these errors.
            _ => &[],
        };
    may.iter().map(|errno| Injection::Fail(*errno)).collect()
}
