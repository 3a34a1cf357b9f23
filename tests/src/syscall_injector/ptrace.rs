//! Wrapper of ptrace(2) for stepping through system calls on x86-64.
#![allow(unsafe_code, reason = "neither rustix nor the standard library has ptrace")]

use std::{io, mem::MaybeUninit, ptr};

use libc::{c_int, c_long, pid_t};

/// Number of bits of a stop's status below the event; they hold the signal.
const EVENT: c_int = 16;

/// Reason why a thread has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Entry or exit of a system call.
    Call,
    /// Event that is invisible to the thread: it was seized, or has started another thread.
    Event,
    /// Signal that is about to be delivered.
    Signal(c_int),
    /// End of the thread; it was not reaped.
    Ended,
}

/// Registers of a thread in a system call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Registers(libc::user_regs_struct);

impl Registers {
    pub(super) fn of(thread: pid_t) -> io::Result<Self> {
        let mut registers = MaybeUninit::<libc::user_regs_struct>::uninit();
        // SAFETY: PTRACE_GETREGS writes one user_regs_struct to its last argument.
        check(unsafe {
            libc::ptrace(
                libc::PTRACE_GETREGS,
                thread,
                ptr::null_mut::<u8>(),
                registers.as_mut_ptr(),
            )
        })?;
        // SAFETY: the kernel has written the value, as there was no error.
        Ok(Self(unsafe { registers.assume_init() }))
    }

    pub(super) fn number(&self) -> c_long {
        self.0.orig_rax.cast_signed()
    }

    pub(super) fn arguments(&self) -> [u64; 3] {
        [self.0.rdi, self.0.rsi, self.0.rdx]
    }

    /// Skips the call, at its entry.
    pub(super) fn skip(mut self, thread: pid_t) -> io::Result<()> {
        self.0.orig_rax = u64::MAX;
        self.set(thread)
    }

    /// Sets the call's result to an error, at its exit.
    pub(super) fn fail(mut self, thread: pid_t, errno: c_int) -> io::Result<()> {
        self.0.rax = i64::from(-errno).cast_unsigned();
        self.set(thread)
    }

    fn set(&self, thread: pid_t) -> io::Result<()> {
        // SAFETY: PTRACE_SETREGS reads one user_regs_struct from its last argument.
        check(unsafe { libc::ptrace(libc::PTRACE_SETREGS, thread, ptr::null_mut::<u8>(), &raw const self.0) })
    }
}

/// Makes this thread the tracer of another thread and of the threads that it starts, and stops it.
pub(super) fn seize(thread: pid_t) -> io::Result<()> {
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE;
    // SAFETY: the request touches no memory of ours.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, 0_usize, options as usize) })?;
    interrupt(thread)
}

/// Stops a thread.
pub(super) fn interrupt(thread: pid_t) -> io::Result<()> {
    // SAFETY: the request touches no memory of ours.
    check(unsafe { libc::ptrace(libc::PTRACE_INTERRUPT, thread, 0_usize, 0_usize) })
}

/// Detaches from a stopped thread, with a signal unless that is 0.
pub(super) fn detach(thread: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: the request touches no memory of ours.
    check(unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, 0_usize, signal as usize) })
}

/// Continues a stopped thread to the next entry or exit of a system call, with a signal unless that is 0.
pub(super) fn go_on(thread: pid_t, signal: c_int) -> io::Result<()> {
    // SAFETY: the request touches no memory of ours.
    check(unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0_usize, signal as usize) })
}

/// Waits for the next stop of a thread of this tracer. Returns `None` if there is no such thread any more.
///
/// The process itself is not reaped, even if this process is its parent.
pub(super) fn wait(process: pid_t) -> io::Result<Option<(pid_t, Stop)>> {
    let all = libc::__WALL | libc::__WNOTHREAD;
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: waitid writes one siginfo_t.
        let done = unsafe {
            libc::waitid(
                libc::P_ALL,
                0,
                info.as_mut_ptr(),
                libc::WEXITED | libc::WSTOPPED | libc::WNOWAIT | all,
            )
        };
        match check(c_long::from(done)) {
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            done => done?,
        }
        // SAFETY: the value is all zeroes or was written, and the kernel writes si_pid for a child.
        let thread = unsafe { info.assume_init().si_pid() };
        // SAFETY: as above.
        let code = unsafe { info.assume_init() }.si_code;
        let ended = matches!(code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED);
        if ended && thread == process {
            return Ok(Some((thread, Stop::Ended)));
        }
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        if check(c_long::from(unsafe { libc::waitpid(thread, &raw mut status, all) })).is_err() {
            // The thread was killed in between.
            continue;
        }
        return Ok(Some((thread, stop(status))));
    }
}

fn stop(status: c_int) -> Stop {
    if !libc::WIFSTOPPED(status) {
        return Stop::Ended;
    }
    let signal = libc::WSTOPSIG(status);
    match status >> EVENT {
        0 if signal == libc::SIGTRAP | 0x80 => Stop::Call,
        0 => Stop::Signal(signal),
        _ => Stop::Event,
    }
}

fn check(returned: c_long) -> io::Result<()> {
    if returned == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
