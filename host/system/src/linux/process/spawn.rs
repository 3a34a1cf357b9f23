//! Start of a helper in a session of its own, without descriptors of the daemon.
#![allow(unsafe_code, reason = "between fork and exec only bare system calls are allowed")]

use std::{
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::Path,
    process::Command,
    ptr,
};

use libc::{c_char, c_int};

/// Environment of a helper, apart from the variables that identify it.
const ENVIRONMENT: [&str; 2] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C",
];

/// Environment variable with the tag of a helper, its owner.
pub(super) const TAG: &str = "XENPLUG_TAG=";
/// Environment variable with the name of a helper.
pub(super) const HELPER: &str = "XENPLUG_HELPER=";
/// Environment variable with the helper's process id, which its descendants inherit.
pub(super) const LEADER: &str = "XENPLUG_LEADER=";

/// Maximum number of arguments, with the variables of a hook among them.
pub(super) const MOST_ARGUMENTS: usize = 256;
const POINTERS: usize = MOST_ARGUMENTS + 16;

/// Digits of a process id with leading zeroes.
const DIGITS: usize = 10;

/// Makes a command that becomes the helper. The caller sets its streams, and passes at most [`MOST_ARGUMENTS`].
pub(super) fn command(
    program: &Path,
    arguments: &[String],
    helper: &str,
    tag: &str,
    cgroups: Option<BorrowedFd<'_>>,
) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/");
    let mut become_helper = Helper::new(program, arguments, helper, tag, cgroups);
    // SAFETY: the closure allocates nothing and takes no lock. All that it needs was made before the fork.
    unsafe { command.pre_exec(move || Err(become_helper.exec())) };
    command
}

/// Arguments of the child's system calls, made before the fork. Texts end with NUL.
struct Helper {
    argv: Vec<Vec<u8>>,
    /// Environment, with `XENPLUG_LEADER=0000000000` as the last variable.
    envp: Vec<Vec<u8>>,
    /// Directory in which to make a cgroup, if the host supports it. The parent holds the descriptor.
    cgroups: Option<RawFd>,
    /// `xenplug-0000000000`, and the same with `/cgroup.procs`.
    cgroup: [Vec<u8>; 2],
}

impl Helper {
    fn new(program: &Path, arguments: &[String], helper: &str, tag: &str, cgroups: Option<BorrowedFd<'_>>) -> Self {
        let text = |text: &[u8]| [text, &[0]].concat();
        let argv = [program.as_os_str().as_bytes()]
            .into_iter()
            .chain(arguments.iter().map(String::as_bytes));
        let own = [
            format!("{TAG}{tag}"),
            format!("{HELPER}{helper}"),
            format!("{LEADER}{}", "0".repeat(DIGITS)),
        ];
        let envp = ENVIRONMENT.map(String::from).into_iter().chain(own);
        let cgroup = super::cgroup::name(0);
        Self {
            argv: argv.map(text).collect(),
            envp: envp.map(|variable| text(variable.as_bytes())).collect(),
            cgroups: cgroups.map(|fd| fd.as_raw_fd()),
            cgroup: [
                text(cgroup.as_bytes()),
                text(format!("{cgroup}/cgroup.procs").as_bytes()),
            ],
        }
    }

    /// Becomes the helper. Returns only if that fails.
    fn exec(&mut self) -> io::Error {
        // SAFETY: the system calls take numbers, and texts that end with NUL and outlive the call. A child of a fork
        // may make all of them (signal-safety(7)).
        unsafe {
            let pid = libc::getpid();
            if libc::setsid() < 0 {
                return io::Error::last_os_error();
            }
            // The standard library has emptied the signal mask, but ignored signals stay ignored. The C library refuses
            // to reset its two internal signals, so this calls the kernel.
            let default = [0_u64; 8];
            for signal in 1..=64 {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    default.as_ptr(),
                    ptr::null::<u64>(),
                    size_of::<u64>(),
                );
            }
            libc::umask(0o022);
            self.enter_cgroup(pid);
            // Closed on exec and not at once: the standard library reports a failed exec through one of them.
            if libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0 {
                return io::Error::last_os_error();
            }
            if let Some(leader) = self.envp.last_mut() {
                write_digits(leader, LEADER.len(), pid);
            }
            libc::execve(
                pointer(&self.argv[0]),
                pointers(&self.argv).as_ptr(),
                pointers(&self.envp).as_ptr(),
            );
            let error = io::Error::last_os_error();
            self.leave_cgroup();
            error
        }
    }

    /// Enters a cgroup of its own, so that the daemon can end all its descendants at once. If that fails, the daemon
    /// finds them by other means (see [`super::tree`]).
    ///
    /// # Safety
    /// As for [`Helper::exec`].
    unsafe fn enter_cgroup(&mut self, pid: c_int) {
        let Some(base) = self.cgroups else { return };
        for name in &mut self.cgroup {
            write_digits(name, super::cgroup::PREFIX.len(), pid);
        }
        let [directory, processes] = &self.cgroup;
        // SAFETY: as promised by the caller. If a call fails, the child stays in its cgroup.
        unsafe {
            libc::mkdirat(base, pointer(directory), 0o755);
            enter(base, processes);
        }
    }

    /// Returns to the parent's cgroup, and removes the helper's.
    ///
    /// # Safety
    /// As for [`Helper::exec`].
    unsafe fn leave_cgroup(&self) {
        let Some(base) = self.cgroups else { return };
        // SAFETY: as promised by the caller.
        unsafe {
            enter(base, b"cgroup.procs\0");
            libc::unlinkat(base, pointer(&self.cgroup[0]), libc::AT_REMOVEDIR);
        }
    }
}

/// Moves the calling process to the cgroup of a `cgroup.procs` file.
///
/// # Safety
/// As for [`Helper::exec`]; the name ends with NUL.
unsafe fn enter(base: RawFd, processes: &[u8]) {
    // SAFETY: as promised by the caller. If open fails, the other calls fail with EBADF.
    unsafe {
        let fd = libc::openat(base, pointer(processes), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(fd, b"0".as_ptr().cast(), 1);
        libc::close(fd);
    }
}

fn pointer(text: &[u8]) -> *const c_char {
    text.as_ptr().cast()
}

/// Returns pointers to texts, with a null pointer at the end.
fn pointers(texts: &[Vec<u8>]) -> [*const c_char; POINTERS] {
    let mut pointers = [ptr::null(); POINTERS];
    for (pointer, text) in pointers[..POINTERS - 1].iter_mut().zip(texts) {
        *pointer = text.as_ptr().cast();
    }
    pointers
}

/// Overwrites the zeroes at an offset with a process id.
fn write_digits(text: &mut [u8], at: usize, pid: c_int) {
    let mut rest = pid.unsigned_abs();
    for digit in text[at..at + DIGITS].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}
