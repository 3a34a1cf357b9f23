//! Output of helper processes: a pipe that outlives the daemon, and never blocks the helper.
//!
//! The helper's end of the pipe is open for both directions, so that the pipe stays when the daemon ends. It does not
//! block, so that a helper that writes into a full pipe loses that output, and goes on. A later daemon opens the pipe
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

/// Makes a pipe: the end to read, and the helper's two streams.
pub(super) fn pipe() -> io::Result<(File, [OwnedFd; 2])> {
    let (read, _) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let both = open(&format!("/proc/self/fd/{}", read.as_raw_fd()), OFlags::RDWR)?;
    Ok((read.into(), [both.try_clone()?, both]))
}

fn open(path: &str, access: OFlags) -> io::Result<OwnedFd> {
    let flags = access | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Pipes of running helpers by process id, each with the helper's start time.
#[derive(Debug, Default)]
pub(super) struct OutputPipes {
    pipes: Mutex<HashMap<u32, (u64, File)>>,
}

impl OutputPipes {
    /// Stores the pipe of a started helper.
    pub(super) fn add(&self, helper: &HelperProcess, pipe: File) {
        lock(&self.pipes).insert(helper.pid, (helper.started, pipe));
    }

    /// Takes the output since the last call. The output is empty if the pipe cannot be opened because the helper closed
    /// its streams.
    pub(super) fn output(&self, helper: &HelperProcess) -> Vec<u8> {
        let mut pipes = lock(&self.pipes);
        if pipes
            .get(&helper.pid)
            .is_none_or(|(started, _)| *started != helper.started)
        {
            let Some(pipe) = of_earlier_daemon(helper) else {
                return Vec::new();
            };
            pipes.insert(helper.pid, (helper.started, pipe));
        }
        let mut output = Vec::new();
        if let Some((_, pipe)) = pipes.get_mut(&helper.pid) {
            // At the end of the available output the read fails with EAGAIN.
            let _ = pipe.take(OUTPUT_MAX as u64).read_to_end(&mut output);
        }
        output
    }

    /// Closes the pipe of a helper that has ended.
    pub(super) fn forget(&self, helper: &HelperProcess) {
        let mut pipes = lock(&self.pipes);
        if pipes
            .get(&helper.pid)
            .is_some_and(|(started, _)| *started == helper.started)
        {
            pipes.remove(&helper.pid);
        }
    }
}

/// Opens the pipe of a helper that an earlier daemon started. Checks that no other process has its number now.
fn of_earlier_daemon(helper: &HelperProcess) -> Option<File> {
    let pipe: File = open(&format!("/proc/{}/fd/2", helper.pid), OFlags::RDONLY).ok()?.into();
    let is_pipe = std::os::unix::fs::FileTypeExt::is_fifo(&pipe.metadata().ok()?.file_type());
    let same = Member::of(helper.pid).is_some_and(|member| member.started == helper.started);
    (is_pipe && same).then_some(pipe)
}
