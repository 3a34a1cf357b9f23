//! The lock files of the original hotplug scripts, by the protocol that locking.sh proves: open, flock, and see that the
//! file is still the one at its path; who holds it may unlink it, and does.

use std::{
    collections::HashMap,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{Error, lock::Locks, sync::lock};

/// `LOCK_BASEDIR` of locking.sh.
const DIRECTORY: &str = "/var/run/xen-hotplug";

/// Time in which a lock may be joined. After it, the scripts that wait get their turn.
const TURN: Duration = Duration::from_millis(500);

/// Pause between two attempts at a lock that another has.
const MOMENT: Duration = Duration::from_millis(2);

/// The lock files of the original scripts.
#[derive(Debug)]
pub(crate) struct LinuxLocks {
    directory: PathBuf,
    held: Mutex<HashMap<String, Held>>,
}

#[derive(Debug)]
struct Held {
    #[expect(dead_code, reason = "its open file is the lock, and given up when this is closed")]
    file: File,
    holders: usize,
    since: Instant,
}

impl Default for LinuxLocks {
    fn default() -> Self {
        Self::below(DIRECTORY.into())
    }
}

impl LinuxLocks {
    fn below(directory: PathBuf) -> Self {
        Self {
            directory,
            held: Mutex::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Takes or joins a lock now; `false` if somebody else has it.
    fn try_take(&self, name: &str) -> Result<bool, Error> {
        let mut all = lock(&self.held);
        if let Some(held) = all.get_mut(name) {
            let joins = held.since.elapsed() < TURN;
            held.holders += usize::from(joins);
            return Ok(joins);
        }
        let path = self.path(name);
        let taken = claim(&path).map_err(|error| Error::io(format!("lock {}", path.display()), &error))?;
        let Some(file) = taken else { return Ok(false) };
        let held = Held {
            file,
            holders: 1,
            since: Instant::now(),
        };
        all.insert(name.to_owned(), held);
        Ok(true)
    }
}

impl Locks for LinuxLocks {
    fn take(&self, name: &str, patience: Duration) -> Result<(), Error> {
        let until = Instant::now() + patience;
        while !self.try_take(name)? {
            if Instant::now() >= until {
                return Err(Error::Busy(format!(
                    "{} is held by a hotplug script, and was not given up within {patience:?}",
                    self.path(name).display()
                )));
            }
            sleep(MOMENT);
        }
        Ok(())
    }

    fn give_back(&self, name: &str) {
        let mut all = lock(&self.held);
        let Some(held) = all.get_mut(name) else { return };
        held.holders -= 1;
        if held.holders == 0 {
            // As long as the file is locked, only we may unlink it. One that cannot be is a lock all the same.
            let _ = std::fs::remove_file(self.path(name));
            all.remove(name);
        }
    }
}

/// One try at a lock file.
fn claim(path: &Path) -> io::Result<Option<File>> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o644);
    loop {
        let file = options.open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
        let ours = file.metadata()?;
        match std::fs::metadata(path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => return Ok(Some(file)),
            // Whoever had it has unlinked it: what we have locked is nobody's lock.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn those_who_hold_a_lock_hold_it_together_and_the_last_unlinks_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let locks = LinuxLocks::below(directory.path().join("xen-hotplug"));
        let others = LinuxLocks::below(directory.path().join("xen-hotplug"));
        locks.take("block", AT_ONCE).expect("it is free");
        locks.take("block", AT_ONCE).expect("it is joined");
        others.take("iptables", AT_ONCE).expect("it is another lock");
        for _ in 0..2 {
            let refused = others.take("block", AT_ONCE).expect_err("it is held");
            assert!(
                matches!(&refused, Error::Busy(text) if text.contains("xen-hotplug/block")),
                "{refused}"
            );
            locks.give_back("block");
        }
        assert!(!directory.path().join("xen-hotplug/block").exists());
        others.take("block", AT_ONCE).expect("it is given up");
    }

    #[test]
    fn a_lock_that_is_held_for_long_is_waited_for_and_not_joined() {
        let directory = tempfile::tempdir().expect("a directory");
        let locks = LinuxLocks::below(directory.path().into());
        locks.take("block", AT_ONCE).expect("it is free");
        sleep(TURN);
        assert!(locks.take("block", AT_ONCE).is_err());
        std::thread::scope(|scope| {
            let late = scope.spawn(|| locks.take("block", LONG));
            locks.give_back("block");
            assert_eq!(late.join().expect("it does not panic"), Ok(()));
        });
        locks.give_back("block");
    }

    #[test]
    fn many_who_take_it_in_turns_are_never_in_it_at_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let inside = Mutex::new(());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    // Each is another daemon's.
                    let locks = LinuxLocks::below(directory.path().into());
                    for _ in 0..50 {
                        locks.take("block", LONG).expect("its turn comes");
                        drop(inside.try_lock().expect("nobody else is inside"));
                        locks.give_back("block");
                    }
                });
            }
        });
    }
}
