//! Helper programs: each in its own session, without descriptors of the daemon, and ended with its whole process tree.

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
    /// Exit code, or 128 plus the signal's number.
    pub code: u32,
    /// Standard output, at most 64 KiB.
    pub stdout: Vec<u8>,
    /// Standard error, at most 64 KiB.
    pub stderr: Vec<u8>,
}

/// Maximum of output that a started helper can write between two calls of [`Process::output`]: the capacity of a pipe
/// (pipe(7)).
pub const OUTPUT_MAX: usize = 64 * 1024;

/// Identity of a started helper, which no other process has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperProcess {
    /// Name of the helper in the grant.
    pub helper: String,
    /// Process id, and session id.
    pub pid: u32,
    /// Start time in clock ticks since boot (field 22 of /proc/PID/stat).
    pub started: u64,
    /// Owner, set in its environment as `XENPLUG_TAG`, by which the daemon finds it again after a crash.
    pub tag: String,
}

/// Helper programs.
pub trait Process: Send + Sync {
    /// Runs a helper to its end, or ends its whole process tree after `limit`. Background processes that a helper
    /// leaves go on, and have its tag.
    ///
    /// Errors: with [`Error::NotFound`], [`Error::Denied`] and [`Error::Invalid`] the helper was not started. With
    /// others it may have been.
    fn run(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        tag: &str,
        limit: Duration,
    ) -> Result<Output, Error>;

    /// Runs a recorded command like [`Process::run`]. Needs a grant of [`ProcessGrant::to_release`].
    fn run_recorded(
        &self,
        grant: &ProcessGrant,
        command: &Command,
        tag: &str,
        limit: Duration,
    ) -> Result<Output, Error>;

    /// Lists the hooks in order of their names: executable files whose names end in `.hook`. A missing directory has
    /// none.
    fn hooks(&self, grant: &HookGrant) -> Result<Vec<PathBuf>, Error>;

    /// Starts a helper in the background. [`Process::output`] reads its output.
    fn start(
        &self,
        grant: &ProcessGrant,
        helper: &str,
        arguments: &[String],
        tag: &str,
    ) -> Result<HelperProcess, Error>;

    /// Tells whether a helper runs.
    fn running(&self, helper: &HelperProcess) -> bool;

    /// Takes the output of both streams since the last call, also if the helper wrote it under an earlier daemon.
    /// Output beyond [`OUTPUT_MAX`] bytes is lost. It never blocks, nor does the helper.
    fn output(&self, helper: &HelperProcess) -> Vec<u8>;

    /// Ends a helper with its whole process tree: SIGTERM, and SIGKILL after `grace`. A helper that is gone is no
    /// error.
    fn end(&self, helper: &HelperProcess, grace: Duration) -> Result<(), Error>;

    /// Finds the helpers with a tag, also those of an earlier daemon. A helper that has ended, but whose descendants
    /// run, has `started` 0: it is not running, and [`Process::end`] ends its descendants.
    fn find(&self, tag: &str) -> Result<Vec<HelperProcess>, Error>;
}
