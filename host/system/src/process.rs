//! Helper programs: their own session, no descriptor of ours, and an end for the whole tree.

pub(crate) mod refusal;

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::command::{Command, Variables, hook};
use crate::{
    Error,
    grant::{HookGrant, ProcessGrant},
};

/// Result of a helper that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit code, or 128 and the signal's number.
    pub code: u32,
    /// At most 64 KiB of standard output.
    pub stdout: Vec<u8>,
    /// At most 64 KiB of standard error.
    pub stderr: Vec<u8>,
}

/// The bytes that are kept of what a started helper writes until somebody asks: what a pipe holds (pipe(7)).
pub const OUTPUT_MAX: usize = 64 * 1024;

/// A helper that was started, by an identity that no other process has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperProcess {
    /// The name it was granted under.
    pub helper: String,
    /// Process id, and the id of its session.
    pub pid: u32,
    /// When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub started: u64,
    /// Owner: set in its environment as `XENPLUG_TAG`, which finds it again after a crash.
    pub tag: String,
}

/// Helper programs.
pub trait Process: Send + Sync {
    /// Runs a helper to its end, or ends its whole tree after `limit`. What it leaves running in the background goes on,
    /// and is found by its tag.
    ///
    /// Errors: [`Error::NotFound`], [`Error::Denied`] and [`Error::Invalid`] say that it was not started; after others it
    /// may have been.
    fn run(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        tag: &str,
        limit: Duration,
    ) -> Result<Output, Error>;

    /// Runs a helper as it was granted once, like [`Process::run`]. Only with [`ProcessGrant::to_release`].
    fn run_recorded(
        &self,
        grant: &ProcessGrant,
        command: &Command,
        tag: &str,
        limit: Duration,
    ) -> Result<Output, Error>;

    /// The hooks that are there now, in the order of their names: files that end in `.hook` and may be executed. A folder
    /// that is not there has none.
    fn hooks(&self, grant: &HookGrant) -> Result<Vec<PathBuf>, Error>;

    /// Starts a helper that goes on. What it writes is kept for [`Process::output`].
    fn start(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        tag: &str,
    ) -> Result<HelperProcess, Error>;

    /// Tells whether it runs.
    fn running(&self, kept: &HelperProcess) -> bool;

    /// Takes the output to either stream that was not taken yet, also if it was written under an earlier daemon: at most
    /// [`OUTPUT_MAX`] bytes. What comes while these wait to be asked for is lost, and nobody waits.
    fn output(&self, kept: &HelperProcess) -> Vec<u8>;

    /// Ends it with its whole tree: SIGTERM, and SIGKILL after `grace`. One that is gone is no error.
    fn end(&self, kept: &HelperProcess, grace: Duration) -> Result<(), Error>;

    /// The helpers that carry a tag, also those of a daemon that is gone. One that has ended itself, but left others
    /// running, has `started` 0: it is not running, and [`Process::end`] ends them.
    fn find(&self, tag: &str) -> Result<Vec<HelperProcess>, Error>;
}
