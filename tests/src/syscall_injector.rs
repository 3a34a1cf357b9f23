//! Steps through the system calls of a running process: notes them, kills the process at one of them, or lets one fail.
//!
//! Calls of all threads are counted together. A point is a call by its [`Call`] name, so that it is the same one in every
//! run, however the threads take turns. Processes that it starts are not followed.

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
    /// SIGKILL to the process before the kernel makes the call.
    KillBefore,
    /// SIGKILL after it was made, before the process knows.
    KillAfter,
    /// The call is not made, and fails.
    Fail(Errno),
    /// The call is made, and is told to have failed.
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

/// A process that is being stepped through, until this is dropped or told to end.
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
    noted: Mutex<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    calls: Vec<Call>,
    /// When the last call began that is not pure.
    last: Option<Instant>,
}

impl Shared {
    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SyscallInjector {
    /// Steps through the calls that a process makes from now on. Files below `home` are named from there, as they would
    /// be in another run.
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
        // ptrace obeys the thread alone that has seized, and lets go of all when that ends.
        let tracer = thread::Builder::new().name("tracer".to_owned()).spawn(move || {
            let seized = tracer.seize();
            let failed = seized.is_err();
            // Nobody hears it only if the one that asked has gone.
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

    /// Returns true if no impure call was made for so long.
    pub fn quiet_for(&self, time: Duration) -> bool {
        self.shared.noted().last.is_none_or(|last| last.elapsed() > time)
    }

    /// Lets the process run as it was. The calls that it made, in order.
    pub fn end(mut self) -> Result<Vec<Call>> {
        self.let_go()?;
        Ok(std::mem::take(&mut self.shared.noted().calls))
    }

    fn let_go(&mut self) -> Result<()> {
        let Some(tracer) = self.tracer.take() else {
            return Ok(());
        };
        self.shared.stop.store(true, SeqCst);
        // One that has ended has no tracer that waits.
        let _ = kill_process(self.process, WAKE);
        tracer.join().map_err(|_| anyhow!("the tracer panicked"))?
    }
}

impl Drop for SyscallInjector {
    fn drop(&mut self) {
        let _ = self.let_go();
    }
}

struct Tracer {
    process: pid_t,
    home: PathBuf,
    point: Option<Point>,
    shared: Arc<Shared>,
    counts: BTreeMap<Call, usize>,
    /// The threads that are in a call, and what is to happen at its exit.
    inside: BTreeMap<pid_t, Option<Injection>>,
}

impl Tracer {
    /// Does something to each thread; one that has just ended, or is another's, is left out.
    fn each_thread(&self, act: impl Fn(pid_t) -> io::Result<()>) -> io::Result<()> {
        for entry in fs::read_dir(format!("/proc/{}/task", self.process))? {
            let thread = entry?.file_name().to_string_lossy().parse::<pid_t>();
            act(thread.map_err(io::Error::other)?).or_else(is_gone)?;
        }
        Ok(())
    }

    /// Those that they begin from here on are seized along with them.
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
                return Ok(self.let_go()?);
            }
            ptrace::go_on(thread, signal).or_else(is_gone)?;
        }
        Ok(())
    }

    /// Lets go of all threads, each of which has to stop for it once more. The end of the tracer would do that, too, but
    /// after it has been joined: who waits for the process as its parent would take such a stop for its end.
    fn let_go(&self) -> io::Result<()> {
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

    /// Handles the entry or the exit of a call. True: the process was killed.
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

    /// Notes a call, and says what is to happen to it.
    fn enter(&mut self, registers: &Registers) -> Option<Injection> {
        let mut call = Call::of(self.process, registers, &self.home);
        let count = self.counts.entry(call.clone()).or_default();
        *count += 1;
        call.nth = *count;
        let point = self.point.as_ref().filter(|point| point.call == call);
        let injection = point.map(|point| point.injection);
        let mut noted = self.shared.noted();
        if why_pure(&call).is_none() {
            noted.last = Some(Instant::now());
        }
        noted.calls.push(call);
        injection
    }
}

/// The signal that a thread is to get after a stop, or 0.
fn to_deliver(stop: Stop) -> c_int {
    match stop {
        Stop::Signal(signal) if signal != WAKE.as_raw() => signal,
        _ => 0,
    }
}

/// A thread may be killed at any time, also while it stands still.
fn is_gone(error: io::Error) -> io::Result<()> {
    if error.raw_os_error() == Some(libc::ESRCH) {
        Ok(())
    } else {
        Err(error)
    }
}
