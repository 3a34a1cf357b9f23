//! A change that a helper made outside of itself, and the command that undoes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xenplug_system::{
    Error,
    process::{self, Output},
};

use super::{
    kind::{AnyKind, HostAccess, ResourceKind},
    tagged::{self, RELEASE_LIMIT},
};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
    shared::SharedResources,
    text::clean,
};

/// A change made by a helper. Devices that hold the same undo command share the change, and it is undone with the last
/// of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The tag in the environment of the helper and of the undo command.
    tag: String,
    undo: Undo,
    outcome: Outcome,
}

/// The call that undoes what a helper did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Undo {
    pub(crate) command: process::Command,
    /// Exit codes, besides 0, that say that there is nothing left to undo.
    pub(crate) settled: Vec<u32>,
    /// True if the command also runs after a helper that failed.
    pub(crate) after_failure: bool,
}

/// The helper's outcome, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    /// It may not have begun, or still run.
    Unknown,
    /// It has ended, and there is something to undo.
    Done,
    /// It has ended and did nothing, but left processes running.
    Nothing,
}

impl Command {
    /// Runs a helper to its end, with the undo command in the journal before.
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        helper: &str,
        arguments: &[String],
        undo: Undo,
        limit: Duration,
    ) -> Result<Output, ResourceError> {
        let (process, grant) = (&access.platform.process, access.process()?);
        grant.command(helper, arguments)?;
        let (device, tag) = (resources.header().instance(), resources.own_tag());
        let command = undo.command.clone();
        let intent = Self {
            tag: tag.clone(),
            undo,
            outcome: Outcome::Unknown,
        };
        access.shared.undo.hold(&command, &device, &tag);
        let ran = resources.acquire(intent, |held| {
            let output = process.run(grant, helper, arguments, &tag, limit)?;
            held.outcome = match output.code == 0 || held.undo.after_failure {
                true => Outcome::Done,
                false => Outcome::Nothing,
            };
            Ok((output, held.outcome))
        });
        // The second value: whether the intent is in the journal and nothing is left to release.
        let (did_nothing, forget) = match &ran {
            Ok((_, Outcome::Nothing)) => (true, tagged::none_left(&**process, &tag)),
            Ok(_) => (false, false),
            // It did not even start. After other errors it may have.
            Err(ResourceError::Platform(Error::NotFound(_) | Error::Denied(_) | Error::Invalid { .. })) => (true, true),
            Err(error) => (!error.was_attempted(), false),
        };
        if forget {
            resources.forget_last()?;
        }
        if did_nothing {
            access.shared.undo.release(&command, &device, &tag);
        }
        ran.map(|(output, _)| output)
    }
}

impl ResourceKind for Command {
    fn describe(&self) -> String {
        format!("the effect that {} undoes", self.undo.command)
    }

    fn release(&self, header: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        let (process, command, device) = (&*access.platform.process, &self.undo.command, header.instance());
        if self.outcome == Outcome::Nothing {
            return tagged::end(process, &self.tag);
        }
        if !access.shared.undo.release(command, &device, &self.tag) {
            return Ok(());
        }
        // The helper may still be at what is to be undone.
        if self.outcome == Outcome::Unknown {
            tagged::end(process, &self.tag)?;
        }
        let output = process.run_recorded(access.process()?, command, &self.tag, RELEASE_LIMIT)?;
        if output.code != 0 && !self.undo.settled.contains(&output.code) {
            return Err(Error::Kernel {
                what: format!("{command}: exit code {}", output.code),
                errno: None,
                source_text: clean(String::from_utf8_lossy(&output.stderr).trim(), 200),
            });
        }
        access.shared.undo.undone(command, &device);
        tagged::end(process, &self.tag)
    }

    fn register(&self, header: &Header, shared: &SharedResources) {
        if self.outcome != Outcome::Nothing {
            shared.undo.hold(&self.undo.command, &header.instance(), &self.tag);
        }
    }
}
