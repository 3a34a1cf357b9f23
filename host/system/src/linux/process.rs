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

/// Bytes kept of each output stream.
const OUTPUT: usize = 64 * 1024;

/// Time that the kernel has to end a process that was sent SIGKILL.
const DEATH: Duration = Duration::from_secs(5);

/// Helper programs of this host.
#[derive(Debug, Default)]
pub(crate) struct LinuxProcess {
    cgroups: Cgroups,
    /// Helpers started by this process, which has to reap them.
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
            // As `*.hook` and `-x` have it (xen-hotplug-common.sh, `call_hooks`). A name that is no text is nobody's hook.
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
        let (child, kept) = self.spawn(&command, tag, stdout.into(), stderr.into())?;
        self.output_pipes.add(&kept, pipe);
        let mut children = lock(&self.children);
        // Those that ended unasked.
        children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
        children.insert(kept.pid, child);
        Ok(kept)
    }

    fn running(&self, kept: &HelperProcess) -> bool {
        self.reap(kept.pid);
        Member::of(kept.pid).is_some_and(|member| member.started == kept.started)
    }

    fn output(&self, kept: &HelperProcess) -> Vec<u8> {
        self.output_pipes.output(kept)
    }

    fn end(&self, kept: &HelperProcess, grace: Duration) -> Result<(), Error> {
        let polite = Instant::now() + grace;
        let mut told = false;
        let mut tree = Tree::of(kept);
        let deadline = polite + DEATH;
        loop {
            let members = tree
                .look(&self.cgroups.members(kept.pid))
                .map_err(|error| Error::io("read /proc", &error))?;
            // After the look: what it did not find alive can be waited for.
            self.reap(kept.pid);
            if members.is_empty() {
                self.cgroups.remove(kept.pid);
                self.output_pipes.forget(kept);
                return Ok(());
            }
            let now = Instant::now();
            if now < polite {
                if !told {
                    members.iter().for_each(|member| member.signal(Signal::TERM));
                    told = true;
                }
            } else if now < deadline {
                // What forked meanwhile is found by the next look.
                if tree.owns_cgroup() {
                    self.cgroups.kill(kept.pid);
                }
                members.iter().for_each(|member| member.signal(Signal::KILL));
            } else {
                return Err(Error::Kernel {
                    what: format!("end the helper {:?}", kept.helper),
                    errno: None,
                    source_text: format!("{} of its processes cannot be killed", members.len()),
                });
            }
            wait_for(
                members[0].pid,
                if now < polite {
                    polite - now
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
        let (mut child, kept) = self.spawn(command, tag, Stdio::piped(), Stdio::piped())?;
        let mut outputs = Outputs::of(&mut child);
        let ended = outputs
            .follow(&mut child, deadline)
            .map_err(|error| Error::io(format!("run {helper:?}"), &error))?;
        let Some(status) = ended else {
            lock(&self.children).insert(kept.pid, child);
            self.end(&kept, Duration::ZERO)?;
            return Err(refusal::out_of_time(helper, limit));
        };
        self.cgroups.remove(kept.pid);
        Ok(Output {
            code: code(status),
            stdout: outputs.stdout.kept,
            stderr: outputs.stderr.kept,
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
        // It is a child that was not waited for: at worst a zombie, which still has its number and its time.
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

    /// Takes note of the end of a child.
    fn reap(&self, pid: u32) {
        let mut children = lock(&self.children);
        if let Some(child) = children.get_mut(&pid)
            && !matches!(child.try_wait(), Ok(None))
        {
            children.remove(&pid);
        }
    }
}

/// Waits for the end of a process, but not for long, as others may begin.
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

/// The exit code, or 128 and the signal's number, as a shell has it.
fn code(status: ExitStatus) -> u32 {
    let signal = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signal).unwrap_or_default().cast_unsigned()
}

/// The output streams of a child.
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

    /// Reads until the child ends, whoever else may have its output open. `None` if it did not end in time.
    fn follow(&mut self, child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
        let Some(pid) = pid_of(child.id()) else {
            return child.wait().map(Some);
        };
        let end = pidfd_open(pid, PidfdFlags::empty())?;
        loop {
            // A child that ended may have left output behind, and descendants that go on writing: what is there now.
            let ended = child.try_wait()?;
            let patience = match ended {
                Some(_) => Duration::ZERO,
                None => deadline.saturating_duration_since(Instant::now()),
            };
            let (stdout, stderr) = self.poll(&end, patience)?;
            let progress = [(stdout, &mut self.stdout), (stderr, &mut self.stderr)]
                .into_iter()
                .any(|(ready, stream)| ready && stream.read());
            match ended {
                Some(_) if progress && !self.are_full() => {}
                Some(status) => return Ok(Some(status)),
                None if patience.is_zero() => return Ok(None),
                None => {}
            }
        }
    }

    /// Tells for each of the two whether there is something to read.
    fn poll(&self, end: &OwnedFd, patience: Duration) -> std::io::Result<(bool, bool)> {
        let streams = [&self.stdout, &self.stderr];
        let mut watched = vec![PollFd::new(end, PollFlags::IN)];
        watched.extend(
            streams
                .iter()
                .filter_map(|stream| stream.pipe.as_ref())
                .map(|pipe| PollFd::new(pipe, PollFlags::IN)),
        );
        match poll(&mut watched, timespec(patience).as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut ready = watched.iter().skip(1).map(|watched| !watched.revents().is_empty());
        let mut next = |stream: &Stream| stream.pipe.is_some() && ready.next().unwrap_or_default();
        Ok((next(streams[0]), next(streams[1])))
    }

    fn are_full(&self) -> bool {
        self.stdout.kept.len() == OUTPUT && self.stderr.kept.len() == OUTPUT
    }
}

struct Stream {
    pipe: Option<std::fs::File>,
    kept: Vec<u8>,
}

impl Stream {
    fn of(pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe: pipe.map(Into::into),
            kept: Vec::new(),
        }
    }

    /// Reads what is there, and forgets what is too much. Whether there was something.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
            Some(Ok(length)) if length > 0 => {
                let room = OUTPUT - self.kept.len();
                self.kept.extend(&buffer[..length.min(room)]);
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
