//! Syscall injector: steps through the system calls of a running process, records them, and at one of them kills the
//! process or makes the call fail.
//!
//! Calls of all threads are counted together. A point is a call by its [`Call`] name, so that it is the same in every
//! run, however the kernel schedules the threads. Processes that the process starts are not followed.

mod call;
mod faults;
mod ptrace;
mod pure;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use libc::{c_int, pid_t};
use rustix::process::{Pid, Signal, kill_process};

pub use call::Call;
pub use faults::{Errno, faults};
use ptrace::{Registers, Stop};
pub use pure::why_pure;

/// Signal that wakes the tracer; processes ignore it by default.
const WAKE: Signal = Signal::WINCH;

/// Fault to inject at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// Kills the process before the kernel makes the call.
    KillBefore,
    /// Kills the process after the call was made, before the process gets its result.
    KillAfter,
    /// Skips the call, and returns an error.
    Fail(Errno),
    /// Makes the call, and returns an error.
    FailAfter(Errno),
}

/// Call at which a fault is injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// The call.
    pub call: Call,
    /// Injected fault.
    pub injection: Injection,
}

/// Traced process. Dropping the value ends the tracing.
#[derive(Debug)]
pub struct SyscallInjector {
    process: Pid,
    shared: Arc<Shared>,
    tracer: Option<JoinHandle<Result<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    hit: AtomicBool,
    record: Mutex<Record>,
}

#[derive(Debug, Default)]
struct Record {
    calls: Vec<Call>,
    /// Start of the last call that is not pure.
    last: Option<Instant>,
}

impl Shared {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SyscallInjector {
    /// Steps through the calls that a process makes from now on. Files below `home` are named relative to it, so that
    /// they have the same names in every run.
    pub fn begin(process: u32, home: &Path, point: Option<Point>) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let (ready, seized) = mpsc::channel();
        let mut tracer = Tracer {
            process: process.cast_signed(),
            home: home.to_owned(),
            point,
            shared: Arc::clone(&shared),
            counts: BTreeMap::new(),
            inside: BTreeMap::new(),
        };
        // The kernel accepts ptrace requests only from the thread that has seized, and detaches all when it ends.
        let tracer = thread::Builder::new().name("tracer".to_owned()).spawn(move || {
            let seized = tracer.seize();
            let failed = seized.is_err();
            // Sending fails only if the starting thread has gone.
            let _ = ready.send(seized);
            if failed { Ok(()) } else { tracer.run() }
        })?;
        seized.recv()?.context("ptrace")?;
        let process = Pid::from_raw(process.cast_signed()).context("a process has an id")?;
        Ok(Self {
            process,
            shared,
            tracer: Some(tracer),
        })
    }

    /// Returns true if the point was reached.
    pub fn hit(&self) -> bool {
        self.shared.hit.load(SeqCst)
    }

    /// Returns true if no impure call was made for this time.
    pub fn quiet_for(&self, time: Duration) -> bool {
        self.shared.record().last.is_none_or(|last| last.elapsed() > time)
    }

    /// Detaches from the process, which runs on. Returns its calls, in order.
    pub fn end(mut self) -> Result<Vec<Call>> {
        self.detach()?;
        Ok(std::mem::take(&mut self.shared.record().calls))
    }

    fn detach(&mut self) -> Result<()> {
        let Some(tracer) = self.tracer.take() else {
            return Ok(());
        };
        self.shared.stop.store(true, SeqCst);
        // If the process has ended, the tracer does not wait for a signal.
        let _ = kill_process(self.process, WAKE);
        tracer.join().map_err(|_| anyhow!("the tracer panicked"))?
    }
}

impl Drop for SyscallInjector {
    fn drop(&mut self) {
        let _ = self.detach();
    }
}

struct Tracer {
    process: pid_t,
    home: PathBuf,
    point: Option<Point>,
    shared: Arc<Shared>,
    counts: BTreeMap<Call, usize>,
    /// Threads that are in a call, and the injection at its exit.
    inside: BTreeMap<pid_t, Option<Injection>>,
}

impl Tracer {
    /// Acts on each thread. Skips threads that have just ended, or that this thread does not trace.
    fn each_thread(&self, act: impl Fn(pid_t) -> io::Result<()>) -> io::Result<()> {
        for entry in fs::read_dir(format!("/proc/{}/task", self.process))? {
            let thread = entry?.file_name().to_string_lossy().parse::<pid_t>();
            act(thread.map_err(io::Error::other)?).or_else(is_gone)?;
        }
        Ok(())
    }

    /// Seizes all threads. Threads that they start later are seized with them.
    fn seize(&self) -> io::Result<()> {
        self.each_thread(ptrace::seize)
    }

    fn run(&mut self) -> Result<()> {
        while let Some((thread, stop)) = ptrace::wait(self.process)? {
            let signal = match stop {
                Stop::Ended if thread == self.process => break,
                Stop::Ended => continue,
                Stop::Call => match self.at_call(thread) {
                    Ok(true) => break,
                    Ok(false) => 0,
                    Err(error) => is_gone(error).map(|()| 0)?,
                },
                stop => to_deliver(stop),
            };
            // An injection that began at a call's entry has to end at its exit.
            if self.shared.stop.load(SeqCst) && self.inside.values().all(Option::is_none) {
                ptrace::detach(thread, signal).or_else(is_gone)?;
                return Ok(self.detach()?);
            }
            ptrace::go_on(thread, signal).or_else(is_gone)?;
        }
        Ok(())
    }

    /// Detaches from all threads, each of which has to stop once more for that. The end of the tracer would detach them
    /// too, but only after the join: the parent that waits for the process would take such a stop for its end.
    fn detach(&self) -> io::Result<()> {
        self.each_thread(ptrace::interrupt)?;
        while let Some((thread, stop)) = ptrace::wait(self.process)? {
            match stop {
                Stop::Ended if thread == self.process => break,
                Stop::Ended => {}
                stop => ptrace::detach(thread, to_deliver(stop)).or_else(is_gone)?,
            }
        }
        Ok(())
    }

    /// Handles the entry or the exit of a call. Returns true if the process was killed.
    fn at_call(&mut self, thread: pid_t) -> io::Result<bool> {
        let registers = Registers::of(thread)?;
        let injection = match self.inside.remove(&thread) {
            None => {
                let injection = self.enter(&registers);
                self.inside.insert(
                    thread,
                    injection.filter(|injection| *injection != Injection::KillBefore),
                );
                if let Some(Injection::Fail(_)) = injection {
                    registers.skip(thread)?;
                }
                injection.filter(|injection| *injection == Injection::KillBefore)
            }
            Some(injection) => injection,
        };
        match injection {
            None => return Ok(false),
            Some(Injection::KillBefore | Injection::KillAfter) => {
                let process = Pid::from_raw(self.process).ok_or(io::ErrorKind::NotFound)?;
                kill_process(process, Signal::KILL)?;
            }
            Some(Injection::Fail(errno) | Injection::FailAfter(errno)) => registers.fail(thread, errno.number())?,
        }
        self.shared.hit.store(true, SeqCst);
        Ok(matches!(injection, Some(Injection::KillBefore | Injection::KillAfter)))
    }

    /// Records a call, and returns the injection at it.
    fn enter(&mut self, registers: &Registers) -> Option<Injection> {
        let mut call = Call::of(self.process, registers, &self.home);
        let count = self.counts.entry(call.clone()).or_default();
        *count += 1;
        call.nth = *count;
        let point = self.point.as_ref().filter(|point| point.call == call);
        let injection = point.map(|point| point.injection);
        let mut record = self.shared.record();
        if why_pure(&call).is_none() {
            record.last = Some(Instant::now());
        }
        record.calls.push(call);
        injection
    }
}

/// Returns the signal to deliver to a thread after a stop, or 0.
fn to_deliver(stop: Stop) -> c_int {
    match stop {
        Stop::Signal(signal) if signal != WAKE.as_raw() => signal,
        _ => 0,
    }
}

/// Ignores `ESRCH`, because a thread may be killed at any time, also while it is stopped.
fn is_gone(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ESRCH) {
        Ok(())
    } else {
        Err(error)
    }
}
