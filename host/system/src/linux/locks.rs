//! The lock files of the original hotplug scripts, by the protocol of locking.sh: open, flock, and check that the file
//! is still the one at its path. The holder may unlink it, and does.

use std::{
    collections::HashMap,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    Error,
    lock::{Locks, ScriptLock},
    sync::lock,
};

/// `LOCK_BASEDIR` of locking.sh.
const DIRECTORY: &str = "/var/run/xen-hotplug";

/// Time for which a held lock may be joined. After it the scripts that wait get their turn.
const TURN: Duration = Duration::from_millis(500);

/// The lock files of the original scripts.
#[derive(Debug)]
pub(crate) struct LinuxLocks(Arc<Table>);

#[derive(Debug)]
struct Table {
    directory: PathBuf,
    locks: Mutex<HashMap<&'static str, Lock>>,
    /// Signalled when a lock is acquired or released, or cannot be acquired.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lock {
    state: State,
    /// Number of threads that wait for the lock.
    waiters: usize,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    /// A thread of this process waits in the kernel for another process to release the lock, and cannot be stopped.
    Waiting,
    /// The wait failed.
    Failed(Error),
    Held {
        /// The locked file. Closing it releases the lock.
        file: File,
        holders: usize,
        since: Instant,
    },
}

/// One of the holders of a lock.
struct Hold {
    table: Arc<Table>,
    name: &'static str,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.table.release(self.name);
    }
}

impl State {
    fn held(file: File) -> Self {
        Self::Held {
            file,
            holders: 0,
            since: Instant::now(),
        }
    }
}

impl Default for LinuxLocks {
    fn default() -> Self {
        Self::below(DIRECTORY.into())
    }
}

impl LinuxLocks {
    fn below(directory: PathBuf) -> Self {
        Self(Arc::new(Table {
            directory,
            locks: Mutex::default(),
            changed: Condvar::new(),
        }))
    }
}

impl Locks for LinuxLocks {
    fn acquire(&self, name: &'static str, deadline: Instant) -> Result<ScriptLock, Error> {
        let (table, begun) = (&self.0, Instant::now());
        let mut locks = lock(&table.locks);
        loop {
            let this = locks.entry(name).or_default();
            if matches!(this.state, State::Free) {
                table.claim(name, this)?;
            }
            match &mut this.state {
                // The first holder may join at any time: a lock without holders was just acquired for a waiting thread.
                State::Held { holders, since, .. } if *holders == 0 || since.elapsed() < TURN => {
                    *holders += 1;
                    let table = Arc::clone(table);
                    return Ok(ScriptLock::new(name, Hold { table, name }));
                }
                State::Failed(error) => {
                    let error = error.clone();
                    this.state = State::Free;
                    return Err(error);
                }
                State::Held { .. } | State::Waiting | State::Free => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy(format!(
                    "{} is held by a hotplug script, and was not given up within {:.1?}",
                    table.path(name).display(),
                    deadline.saturating_duration_since(begun)
                )));
            }
            this.waiters += 1;
            let waited = table.changed.wait_timeout(locks, left);
            locks = waited.unwrap_or_else(PoisonError::into_inner).0;
            if let Some(this) = locks.get_mut(name) {
                this.waiters -= 1;
            }
        }
    }
}

impl Table {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Acquires a free lock, or starts a thread that waits in the kernel for the process that holds it.
    fn claim(self: &Arc<Self>, name: &'static str, this: &mut Lock) -> Result<(), Error> {
        let failed = |error: io::Error| Error::io(format!("lock {}", self.path(name).display()), &error);
        if let Some(file) = claim(&self.path(name), FlockOperation::NonBlockingLockExclusive).map_err(failed)? {
            this.state = State::held(file);
            return Ok(());
        }
        let table = Arc::clone(self);
        let wait = move || table.claim_later(name);
        let thread = thread::Builder::new().name("script-lock".to_owned());
        thread.spawn(wait).map_err(failed)?;
        this.state = State::Waiting;
        Ok(())
    }

    fn claim_later(&self, name: &'static str) {
        let path = self.path(name);
        let claimed = claim(&path, FlockOperation::LockExclusive);
        let mut locks = lock(&self.locks);
        let this = locks.entry(name).or_default();
        this.state = match claimed {
            Ok(Some(file)) if this.waiters > 0 => State::held(file),
            Ok(file) => {
                // All waiting threads have timed out meanwhile.
                unlink(&path, file);
                State::Free
            }
            Err(error) => State::Failed(Error::io(format!("lock {}", path.display()), &error)),
        };
        self.changed.notify_all();
    }

    fn release(&self, name: &'static str) {
        let mut locks = lock(&self.locks);
        let this = locks.entry(name).or_default();
        let State::Held { holders, .. } = &mut this.state else {
            return;
        };
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        if let State::Held { file, .. } = std::mem::take(&mut this.state)
            && this.waiters == 0
        {
            unlink(&self.path(name), Some(file));
        }
        // If threads of this process wait, the file stays: scripts may have waited for it longer, and the kernel serves
        // them in order. After an unlink they would have to wait for a new file.
        self.changed.notify_all();
    }
}

/// Unlinks the file of a held lock, then releases the lock. Only the holder may unlink a locked file. If the file
/// cannot be unlinked, the lock works all the same.
fn unlink(path: &Path, locked: Option<File>) {
    if locked.is_some() {
        let _ = std::fs::remove_file(path);
    }
}

/// Locks a file. Returns `None` if another process holds the lock and `operation` does not wait.
fn claim(path: &Path, operation: FlockOperation) -> io::Result<Option<File>> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o644);
    loop {
        let file = options.open(path)?;
        match flock(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let ours = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(Some(file)),
            // The previous holder has unlinked the file. The locked file is not the one at the path: try again.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Command, Stdio},
        thread::sleep,
    };

    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    /// Starts a process that holds a lock, as a script does, until it is killed.
    fn script(directory: &Path) -> Child {
        let script = "exec 9<>\"$0/block\"; flock -x 9; touch \"$0/held\"; exec sleep 60";
        let child = Command::new("sh")
            .args(["-c", script])
            .arg(directory)
            .stdin(Stdio::null())
            .spawn();
        let child = child.expect("there is a shell");
        while !directory.join("held").exists() {
            sleep(Duration::from_millis(1));
        }
        std::fs::remove_file(directory.join("held")).expect("it was touched");
        child
    }

    fn end(mut script: Child) {
        script.kill().expect("it runs");
        script.wait().expect("it ends");
    }

    #[test]
    fn holders_share_a_lock_and_the_last_unlinks_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let locks = LinuxLocks::below(directory.path().join("xen-hotplug"));
        let others = LinuxLocks::below(directory.path().join("xen-hotplug"));
        let held = [(); 2].map(|()| locks.acquire("block", now()).expect("it is free, then joined"));
        let _other = others.acquire("iptables", now()).expect("it is another lock");
        for hold in held {
            let refused = others.acquire("block", now()).expect_err("it is held");
            assert!(
                matches!(&refused, Error::Busy(text) if text.contains("xen-hotplug/block")),
                "{refused}"
            );
            drop(hold);
        }
        // The thread of a wait that timed out releases the lock as soon as it gets it.
        let until = later();
        while directory.path().join("xen-hotplug/block").exists() {
            assert!(Instant::now() < until, "the file stays");
            sleep(Duration::from_millis(1));
        }
        others.acquire("block", later()).expect("it is given up");
    }

    #[test]
    fn late_holder_waits_and_does_not_join() {
        let directory = tempfile::tempdir().expect("a directory");
        let locks = LinuxLocks::below(directory.path().into());
        let first = locks.acquire("block", now()).expect("it is free");
        sleep(TURN);
        assert!(locks.acquire("block", now()).is_err());
        thread::scope(|scope| {
            let late = scope.spawn(|| locks.acquire("block", later()));
            drop(first);
            late.join().expect("it does not panic").expect("its turn comes");
        });
    }

    #[test]
    fn lock_of_a_script_is_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let locks = LinuxLocks::below(directory.path().into());
        let held = script(directory.path());
        assert!(
            locks
                .acquire("block", Instant::now() + Duration::from_millis(50))
                .is_err()
        );
        thread::scope(|scope| {
            let waiters = [(); 2].map(|()| scope.spawn(|| locks.acquire("block", later())));
            sleep(Duration::from_millis(20));
            end(held);
            for waiter in waiters {
                waiter.join().expect("it does not panic").expect("its turn comes");
            }
        });
        assert!(!directory.path().join("block").exists());
    }

    #[test]
    fn lock_without_waiters_is_released() {
        let directory = tempfile::tempdir().expect("a directory");
        let locks = LinuxLocks::below(directory.path().into());
        let held = script(directory.path());
        assert!(locks.acquire("block", now()).is_err());
        end(held);
        end(script(directory.path()));
    }

    #[test]
    fn lock_is_never_held_by_two_processes_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let inside = Mutex::new(());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Each thread plays another process.
                    let locks = LinuxLocks::below(directory.path().into());
                    for _ in 0..50 {
                        let _held = locks.acquire("block", later()).expect("its turn comes");
                        drop(inside.try_lock().expect("nobody else is inside"));
                    }
                });
            }
        });
    }
}
