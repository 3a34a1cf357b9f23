//! Helper programs of this host.

mod cgroup;
mod output;
mod spawn;
mod tree;

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::ExitStatusExt},
    },
    path::PathBuf,
    process::{Child, ExitStatus, Stdio},
    sync::Mutex,
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{PidfdFlags, Signal, pidfd_open},
};

use self::{
    cgroup::Cgroups,
    output::OutputPipes,
    tree::{Member, Tree, pid_of},
};
use super::retry::retry;
use crate::{
    Error, Process,
    grant::{HookGrant, ProcessGrant},
    process::{self, HelperProcess, Output, refusal},
    sync::lock,
};

/// Maximum of bytes to keep of each output stream.
const OUTPUT: usize = 64 * 1024;

/// Time for the kernel to end a process after SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// Helper programs of this host.
#[derive(Debug, Default)]
pub(crate) struct LinuxProcess {
    cgroups: Cgroups,
    /// Helpers started by this process, which reaps them.
    children: Mutex<HashMap<u32, Child>>,
    output_pipes: OutputPipes,
}

impl Process for LinuxProcess {
    fn run(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        tag: &str,
        limit: Duration,
    ) -> Result<Output, Error> {
        self.run_to_its_end(&grant.command(helper, arguments)?, tag, limit)
    }

    fn run_recorded(
        &self,
        grant: &ProcessGrant,
        command: &process::Command,
        tag: &str,
        limit: Duration,
    ) -> Result<Output, Error> {
        grant.permit_recorded(command)?;
        self.run_to_its_end(command, tag, limit)
    }

    fn hooks(&self, grant: &HookGrant) -> Result<Vec<PathBuf>, Error> {
        let failed = |error: io::Error| Error::io(format!("read {}", grant.folder().display()), &error);
        let entries = match retry(|| fs::read_dir(grant.folder())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut hooks = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let hidden = path
                .file_name()
                .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
            // Like `*.hook` and `-x` in the scripts (xen-hotplug-common.sh, `call_hooks`). A name has to be UTF-8, and
            // env(1) takes one with `=` for a variable.
            let is_hook = !hidden
                && path.extension().is_some_and(|extension| extension == "hook")
                && path.to_str().is_some_and(|text| !text.contains('='))
                && fs::metadata(&path).is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0);
            if is_hook {
                hooks.push(path);
            }
        }
        hooks.sort();
        Ok(hooks)
    }

    fn start(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        tag: &str,
    ) -> Result<HelperProcess, Error> {
        let command = grant.command(helper, arguments)?;
        let (pipe, [stdout, stderr]) =
            output::pipe().map_err(|error| Error::io(format!("make a pipe for the helper {helper:?}"), &error))?;
        let (child, started) = self.spawn(&command, tag, stdout.into(), stderr.into())?;
        self.output_pipes.add(&started, pipe);
        let mut children = lock(&self.children);
        // Reaps helpers that ended by themselves.
        children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
        children.insert(started.pid, child);
        Ok(started)
    }

    fn running(&self, helper: &HelperProcess) -> bool {
        self.reap(helper.pid);
        Member::of(helper.pid).is_some_and(|member| member.started == helper.started)
    }

    fn output(&self, helper: &HelperProcess) -> Vec<u8> {
        self.output_pipes.output(helper)
    }

    fn end(&self, helper: &HelperProcess, grace: Duration) -> Result<(), Error> {
        let grace_end = Instant::now() + grace;
        let mut is_signalled = false;
        let mut tree = Tree::of(helper);
        let deadline = grace_end + DEATH;
        loop {
            let members = tree
                .find_members(&self.cgroups.members(helper.pid))
                .map_err(|error| Error::io("read /proc", &error))?;
            // Only after the search, because the number of a reaped helper may be reused.
            self.reap(helper.pid);
            if members.is_empty() {
                self.cgroups.remove(helper.pid);
                self.output_pipes.forget(helper);
                return Ok(());
            }
            let now = Instant::now();
            if now < grace_end {
                if !is_signalled {
                    members.iter().for_each(|member| member.signal(Signal::TERM));
                    is_signalled = true;
                }
            } else if now < deadline {
                // The next iteration finds processes that were forked meanwhile.
                if tree.owns_cgroup() {
                    self.cgroups.kill(helper.pid);
                }
                members.iter().for_each(|member| member.signal(Signal::KILL));
            } else {
                return Err(Error::Kernel {
                    what: format!("end the helper {:?}", helper.helper),
                    errno: None,
                    source_text: format!("{} of its processes cannot be killed", members.len()),
                });
            }
            wait_for(
                members[0].pid,
                if now < grace_end {
                    grace_end - now
                } else {
                    Duration::from_millis(5)
                },
            );
        }
    }

    fn find(&self, tag: &str) -> Result<Vec<HelperProcess>, Error> {
        tree::find(tag).map_err(|error| Error::io("read /proc", &error))
    }
}

impl LinuxProcess {
    fn run_to_its_end(&self, command: &process::Command, tag: &str, limit: Duration) -> Result<Output, Error> {
        let helper = &command.helper;
        let deadline = Instant::now() + limit;
        let (mut child, started) = self.spawn(command, tag, Stdio::piped(), Stdio::piped())?;
        let mut outputs = Outputs::of(&mut child);
        let ended = outputs
            .follow(&mut child, deadline)
            .map_err(|error| Error::io(format!("run {helper:?}"), &error))?;
        let Some(status) = ended else {
            lock(&self.children).insert(started.pid, child);
            self.end(&started, Duration::ZERO)?;
            return Err(refusal::out_of_time(helper, limit));
        };
        self.cgroups.remove(started.pid);
        Ok(Output {
            code: code(status),
            stdout: outputs.stdout.bytes,
            stderr: outputs.stderr.bytes,
        })
    }

    fn spawn(
        &self,
        command: &process::Command,
        tag: &str,
        stdout: Stdio,
        stderr: Stdio,
    ) -> Result<(Child, HelperProcess), Error> {
        let process::Command {
            helper,
            program,
            arguments,
        } = command;
        if tag.is_empty() || tag.contains('\0') {
            return Err(Error::Invalid {
                key: "tag",
                cause: format!("{tag:?} is not a tag"),
            });
        }
        if arguments.len() > spawn::MOST_ARGUMENTS {
            return Err(Error::Denied(format!(
                "the helper {helper:?} was given {} arguments",
                arguments.len()
            )));
        }
        let mut command = spawn::command(program, arguments, helper, tag, self.cgroups.base());
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => refusal::missing(helper, program),
            std::io::ErrorKind::PermissionDenied => refusal::not_executable(helper, program),
            _ => Error::io(format!("start the helper {helper:?}, {}", program.display()), &error),
        })?;
        let pid = child.id();
        // The child has not been waited for. Even as a zombie it has its number and start time.
        let started = tree::started(pid).unwrap_or_default();
        Ok((
            child,
            HelperProcess {
                helper: helper.clone(),
                pid,
                started,
                tag: tag.into(),
            },
        ))
    }

    /// Reaps a child if it has ended.
    fn reap(&self, pid: u32) {
        let mut children = lock(&self.children);
        if let Some(child) = children.get_mut(&pid)
            && !matches!(child.try_wait(), Ok(None))
        {
            children.remove(&pid);
        }
    }
}

/// Waits briefly for the end of a process. New processes may appear meanwhile.
fn wait_for(pid: u32, most: Duration) {
    let most = most.min(Duration::from_millis(20));
    let fd = pid_of(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    match fd {
        Some(fd) => _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], timespec(most).as_ref()),
        None => sleep(Duration::from_millis(1)),
    }
}

fn timespec(duration: Duration) -> Option<Timespec> {
    Timespec::try_from(duration).ok()
}

/// Returns the exit code, or 128 plus the signal's number, as a shell does.
fn code(status: ExitStatus) -> u32 {
    let signal = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signal).unwrap_or_default().cast_unsigned()
}

/// Output streams of a child.
struct Outputs {
    stdout: Stream,
    stderr: Stream,
}

impl Outputs {
    fn of(child: &mut Child) -> Self {
        Self {
            stdout: Stream::of(child.stdout.take().map(OwnedFd::from)),
            stderr: Stream::of(child.stderr.take().map(OwnedFd::from)),
        }
    }

    /// Reads until the child ends, even if descendants keep its output open. Returns `None` if it did not end in time.
    fn follow(&mut self, child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
        let Some(pid) = pid_of(child.id()) else {
            return child.wait().map(Some);
        };
        let end = pidfd_open(pid, PidfdFlags::empty())?;
        loop {
            // After the end of the child there may be unread output, and descendants that go on writing. Only the
            // output that is there now is read.
            let ended = child.try_wait()?;
            let timeout = match ended {
                Some(_) => Duration::ZERO,
                None => deadline.saturating_duration_since(Instant::now()),
            };
            let (stdout, stderr) = self.poll(&end, timeout)?;
            let progress = [(stdout, &mut self.stdout), (stderr, &mut self.stderr)]
                .into_iter()
                .any(|(ready, stream)| ready && stream.read());
            match ended {
                Some(_) if progress && !self.are_full() => {}
                Some(status) => return Ok(Some(status)),
                None if timeout.is_zero() => return Ok(None),
                None => {}
            }
        }
    }

    /// Waits for output or the end of the child. Returns the readiness of stdout and stderr.
    fn poll(&self, end: &OwnedFd, timeout: Duration) -> std::io::Result<(bool, bool)> {
        let streams = [&self.stdout, &self.stderr];
        let mut watched = vec![PollFd::new(end, PollFlags::IN)];
        watched.extend(
            streams
                .iter()
                .filter_map(|stream| stream.pipe.as_ref())
                .map(|pipe| PollFd::new(pipe, PollFlags::IN)),
        );
        match poll(&mut watched, timespec(timeout).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = watched.iter().skip(1).map(|watched| !watched.revents().is_empty());
        let mut next = |stream: &Stream| stream.pipe.is_some() && ready.next().unwrap_or_default();
        Ok((next(streams[0]), next(streams[1])))
    }

    fn are_full(&self) -> bool {
        self.stdout.bytes.len() == OUTPUT && self.stderr.bytes.len() == OUTPUT
    }
}

struct Stream {
    pipe: Option<std::fs::File>,
    bytes: Vec<u8>,
}

impl Stream {
    fn of(pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe: pipe.map(Into::into),
            bytes: Vec::new(),
        }
    }

    /// Reads available output, and discards what exceeds [`OUTPUT`]. Returns `false` at the end of the stream.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
            Some(Ok(length)) if length > 0 => {
                let space = OUTPUT - self.bytes.len();
                self.bytes.extend(&buffer[..length.min(space)]);
                true
            }
            Some(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => true,
            _ => {
                self.pipe = None;
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
