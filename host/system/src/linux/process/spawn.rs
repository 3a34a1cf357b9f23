//! Start of a helper in a session of its own, with no descriptor of the daemon's.
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

/// All that a helper has for an environment, but for what says whose it is.
const ENVIRONMENT: [&str; 2] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG=C",
];

/// Environment variable with the owner of a process.
pub(super) const TAG: &str = "XENPLUG_TAG=";
/// Which helper.
pub(super) const HELPER: &str = "XENPLUG_HELPER=";
/// The process that was started, for its descendants to inherit.
pub(super) const LEADER: &str = "XENPLUG_LEADER=";

/// The most arguments, and variables with them.
pub(super) const MOST_ARGUMENTS: usize = 256;
const POINTERS: usize = MOST_ARGUMENTS + 16;

/// Digits of a process id, with zeroes before them.
const DIGITS: usize = 10;

/// A command that becomes the helper. Its streams are still to be set. Takes at most [`MOST_ARGUMENTS`].
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
    // SAFETY: it allocates nothing and takes no lock: all that it needs was made before.
    unsafe { command.pre_exec(move || Err(become_helper.exec())) };
    command
}

/// Arguments of the child's system calls, made before the fork. Texts end with NUL.
struct Helper {
    argv: Vec<Vec<u8>>,
    /// Ends with the process id: `XENPLUG_LEADER=0000000000`.
    envp: Vec<Vec<u8>>,
    /// The directory in which to make a cgroup, if it can be done. The parent holds the descriptor.
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

    /// Becomes the helper; returns only if that failed.
    fn exec(&mut self) -> io::Error {
        // SAFETY: system calls that take numbers, and texts that end with NUL and live over the call; a child of a fork
        // may make them all (signal-safety(7)).
        unsafe {
            let pid = libc::getpid();
            if libc::setsid() < 0 {
                return io::Error::last_os_error();
            }
            // The library has emptied the mask, but not undone what is ignored; and of two signals it lets nobody speak.
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
            // Not closed at once: the library tells of a failed exec through one of them.
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

    /// Enters a cgroup of its own, by which all its descendants can be ended at once. Without one there are other ways.
    ///
    /// # Safety
    /// As for [`Helper::exec`].
    unsafe fn enter_cgroup(&mut self, pid: c_int) {
        let Some(base) = self.cgroups else { return };
        for name in &mut self.cgroup {
            write_digits(name, super::cgroup::PREFIX.len(), pid);
        }
        let [directory, processes] = &self.cgroup;
        // SAFETY: as promised by the caller. What fails leaves the child where it is.
        unsafe {
            libc::mkdirat(base, pointer(directory), 0o755);
            enter(base, processes);
        }
    }

    /// Goes back to where the parent is, and removes the cgroup.
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

/// Makes the calling process one of those in a file named `cgroup.procs`.
///
/// # Safety
/// As for [`Helper::exec`]; the name ends with NUL.
unsafe fn enter(base: RawFd, processes: &[u8]) {
    // SAFETY: as promised by the caller. Without a descriptor the rest does nothing.
    unsafe {
        let fd = libc::openat(base, pointer(processes), libc::O_WRONLY | libc::O_CLOEXEC);
        libc::write(fd, b"0".as_ptr().cast(), 1);
        libc::close(fd);
    }
}

fn pointer(text: &[u8]) -> *const c_char {
    text.as_ptr().cast()
}

/// Pointers to texts, and a null one at the end.
fn pointers(texts: &[Vec<u8>]) -> [*const c_char; POINTERS] {
    let mut pointers = [ptr::null(); POINTERS];
    for (pointer, text) in pointers[..POINTERS - 1].iter_mut().zip(texts) {
        *pointer = text.as_ptr().cast();
    }
    pointers
}

/// Writes a process id over the zeroes at an offset.
fn write_digits(text: &mut [u8], at: usize, pid: c_int) {
    let mut rest = pid.unsigned_abs();
    for digit in text[at..at + DIGITS].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}
