//! Process tree of a helper, found by its session, its cgroup, the environment that it passes on, and parents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::spawn::{HELPER, LEADER, TAG};
use crate::{linux::retry::retry, process::HelperProcess};

/// A living process. Its number and start time identify it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    parent: u32,
    session: u32,
}

impl Member {
    /// Finds the process with this number. Returns `None` for a zombie too.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let (member, state) = stat(pid)?;
        (!matches!(state, 'Z' | 'X')).then_some(member)
    }

    /// Sends a signal to the process, but not to a later process with the same number.
    pub(super) fn signal(&self, signal: Signal) {
        let Some(fd) = pid_of(self.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return;
        };
        if Self::of(self.pid).is_some_and(|now| now.started == self.started) {
            // The process may end at any time.
            let _ = pidfd_send_signal(&fd, signal);
        }
    }
}

/// Converts a process number for the kernel.
pub(super) fn pid_of(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

/// Returns the start time of a process, even of a zombie.
pub(super) fn started(pid: u32) -> Option<u64> {
    stat(pid).map(|(member, _)| member.started)
}

/// Processes of a helper. The daemon searches them repeatedly until none is left.
pub(super) struct Tree<'h> {
    helper: &'h HelperProcess,
    /// Members found before, with their start times. They stay members after their parents have ended.
    found: BTreeMap<u32, u64>,
    /// Set once the helper itself was found, so that the session with its number is its own.
    led: bool,
    /// Set if another process has the helper's number now, which may own the session and the cgroup with that number.
    is_taken: bool,
}

impl<'h> Tree<'h> {
    pub(super) fn of(helper: &'h HelperProcess) -> Self {
        Self {
            helper,
            found: BTreeMap::new(),
            led: false,
            is_taken: false,
        }
    }

    /// Tells whether the cgroup with the helper's number is its own.
    pub(super) fn owns_cgroup(&self) -> bool {
        !self.is_taken
    }

    /// Finds the living members: processes in the helper's session or cgroup, processes that inherited its [`Mark`],
    /// and the children of all these.
    pub(super) fn find_members(&mut self, cgroup: &[u32]) -> io::Result<Vec<Member>> {
        let helper = self.helper;
        let all: BTreeMap<u32, Member> = processes()?.into_iter().map(|process| (process.pid, process)).collect();
        let leads = all.get(&helper.pid).map(|leader| leader.started == helper.started);
        self.led |= leads == Some(true);
        self.is_taken |= leads == Some(false);
        let is_root = |process: &Member| {
            let number = (self.led && process.session == helper.pid) || cgroup.contains(&process.pid);
            (number && !self.is_taken)
                || self.found.get(&process.pid) == Some(&process.started)
                || Mark::of(process.pid).is_some_and(|mark| mark.leader == helper.pid && mark.tag == helper.tag)
        };
        let mut members: BTreeSet<u32> = all
            .values()
            .filter(|process| is_root(process))
            .map(|root| root.pid)
            .collect();
        loop {
            let is_new = |process: &&Member| members.contains(&process.parent) && !members.contains(&process.pid);
            let children: Vec<u32> = all.values().filter(is_new).map(|child| child.pid).collect();
            if children.is_empty() {
                break;
            }
            members.extend(children);
        }
        let members: Vec<Member> = members.iter().filter_map(|pid| all.get(pid).copied()).collect();
        self.found = members.iter().map(|member| (member.pid, member.started)).collect();
        Ok(members)
    }
}

/// Finds the helpers with a tag, also those of which only descendants live.
pub(super) fn find(tag: &str) -> io::Result<Vec<HelperProcess>> {
    let mut found: BTreeMap<u32, HelperProcess> = BTreeMap::new();
    for process in processes()? {
        let Some(mark) = Mark::of(process.pid).filter(|mark| mark.tag == tag) else {
            continue;
        };
        let helper = found.entry(mark.leader).or_insert_with(|| HelperProcess {
            helper: mark.helper,
            pid: mark.leader,
            started: 0,
            tag: mark.tag,
        });
        if process.pid == mark.leader {
            helper.started = process.started;
        }
    }
    Ok(found.into_values().collect())
}

/// Variables that a helper's processes inherit in their environment.
struct Mark {
    tag: String,
    helper: String,
    leader: u32,
}

impl Mark {
    fn of(pid: u32) -> Option<Self> {
        let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
        let value = |name: &str| {
            let mut variables = environment.split(|byte| *byte == 0);
            let value = variables.find_map(|variable| variable.strip_prefix(name.as_bytes()))?;
            String::from_utf8(value.into()).ok()
        };
        Some(Self {
            tag: value(TAG)?,
            helper: value(HELPER)?,
            leader: value(LEADER)?.parse().ok()?,
        })
    }
}

fn processes() -> io::Result<Vec<Member>> {
    let entries = retry(|| fs::read_dir("/proc"))?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter_map(Member::of).collect())
}

/// Reads the process with this number, and its state.
fn stat(pid: u32) -> Option<(Member, char)> {
    read_stat(
        pid,
        &String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?),
    )
}

/// Reads /proc/PID/stat (proc_pid_stat(5)), in which a name in parentheses may hold anything.
fn read_stat(pid: u32, stat: &str) -> Option<(Member, char)> {
    let (_, stat) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = stat.split_whitespace().collect();
    // The list begins with field 3: state, parent, group, session. Field 22 is the start time.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let small = |field: usize| u32::try_from(number(field)?).ok();
    let member = Member {
        pid,
        started: number(22)?,
        parent: small(4)?,
        session: small(6)?,
    };
    Some((member, fields.first()?.chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_stat_is_parsed_whatever_its_name() {
        let rest = "S 7 42 41 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 9876 0 0";
        for name in ["sh", "a b", ") S 1 1 1", "x) (y"] {
            let member = Member {
                pid: 42,
                started: 9876,
                parent: 7,
                session: 41,
            };
            assert_eq!(
                read_stat(42, &format!("42 ({name}) {rest}")),
                Some((member, 'S')),
                "{name}"
            );
        }
        for odd in ["", "42", "42 (sh)", "42 (sh) S 7"] {
            assert_eq!(read_stat(42, odd), None, "{odd}");
        }
    }
}
