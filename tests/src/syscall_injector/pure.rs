//! Pure calls, which change nothing outside of the process: a kill at one equals a kill at the next impure one.

use super::Call;

/// Returns the reason why a call is pure, if it is.
pub fn why_pure(call: &Call) -> Option<&'static str> {
    let on = |part: &str| call.target.contains(part);
    Some(match call.name.as_str() {
        "futex" | "sched_yield" | "epoll_wait" | "poll" | "ppoll" | "clock_nanosleep" | "restart_syscall" => {
            "it only waits, or wakes a thread"
        }
        "clock_gettime" | "getpid" | "gettid" | "getrandom" | "sched_getaffinity" | "getsockname" => "it only queries",
        "brk" | "mmap" | "munmap" | "mprotect" | "madvise" => "its memory goes with the process",
        "rt_sigaction" | "rt_sigprocmask" | "sigaltstack" | "rseq" | "set_robust_list" | "prctl" | "exit"
        | "clone3" => "its threads and their settings go with the process",
        "access" | "fstat" | "newfstatat" | "stat" | "statx" | "statfs" | "readlink" | "readlinkat" | "getdents64"
        | "lseek" | "pread64" => "it only reads metadata",
        "fcntl" | "epoll_ctl" | "setsockopt" | "socket" | "pipe2" => "its descriptors go with the process",
        "openat" | "close" if call.target.starts_with("/proc//") => "it only reads process information",
        // Messages that nobody has read go with the connection, and the store gives them to no one else.
        "read" | "recvfrom" | "recvmsg" => "it only reads",
        "write" if on("eventfd") => "it wakes another of its threads",
        _ => return None,
    })
}
