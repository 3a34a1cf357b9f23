//! Output of helper processes: a pipe that outlives its reader, and that nobody waits for.
//!
//! The helper's end of the pipe is open for both directions, so that the pipe stays when the daemon goes, and does not
//! block, so that a helper that writes into a full one loses what it writes, and goes on. A later daemon opens the pipe
//! through `/proc/PID/fd/2`.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    sync::Mutex,
};

use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};

use super::tree::Member;
use crate::{
    process::{HelperProcess, OUTPUT_MAX},
    sync::lock,
};

/// A pipe: the end to read, and the helper's two streams.
pub(super) fn pipe() -> io::Result<(File, [OwnedFd; 2])> {
    let (read, _) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let both = open(&format!("/proc/self/fd/{}", read.as_raw_fd()), OFlags::RDWR)?;
    Ok((read.into(), [both.try_clone()?, both]))
}

fn open(path: &str, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The pipes of helpers that go on, by process, with the time it started.
#[derive(Debug, Default)]
pub(super) struct OutputPipes {
    pipes: Mutex<HashMap<u32, (u64, File)>>,
}

impl OutputPipes {
    /// Keeps the pipe of a helper that was started.
    pub(super) fn add(&self, kept: &HelperProcess, pipe: File) {
        lock(&self.pipes).insert(kept.pid, (kept.started, pipe));
    }

    /// Takes the output since the last call. A helper whose pipe cannot be opened, as it closed its streams, says
    /// nothing.
    pub(super) fn output(&self, kept: &HelperProcess) -> Vec<u8> {
        let mut pipes = lock(&self.pipes);
        if pipes.get(&kept.pid).is_none_or(|(started, _)| *started != kept.started) {
            let Some(pipe) = of_earlier_daemon(kept) else {
                return Vec::new();
            };
            pipes.insert(kept.pid, (kept.started, pipe));
        }
        let mut output = Vec::new();
        if let Some((_, pipe)) = pipes.get_mut(&kept.pid) {
            // It ends with an error, as there is nothing more for now.
            let _ = pipe.take(OUTPUT_MAX as u64).read_to_end(&mut output);
        }
        output
    }

    /// Closes the pipe of a helper that has ended.
    pub(super) fn forget(&self, kept: &HelperProcess) {
        let mut pipes = lock(&self.pipes);
        if pipes
            .get(&kept.pid)
            .is_some_and(|(started, _)| *started == kept.started)
        {
            pipes.remove(&kept.pid);
        }
    }
}

/// The pipe of a helper that an earlier daemon started, and of no other process that has its number now.
fn of_earlier_daemon(kept: &HelperProcess) -> Option<File> {
    let pipe: File = open(&format!("/proc/{}/fd/2", kept.pid), OFlags::RDONLY).ok()?.into();
    let is_pipe = std::os::unix::fs::FileTypeExt::is_fifo(&pipe.metadata().ok()?.file_type());
    let same = Member::of(kept.pid).is_some_and(|member| member.started == kept.started);
    (is_pipe && same).then_some(pipe)
}
