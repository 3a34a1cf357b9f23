//! Hooks that ran as a vif came, and run again when it goes.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tracing::warn;
use xenplug_system::{
    Error,
    grant::HookGrant,
    process::{Command, Output},
};

use super::{
    kind::{AnyKind, HostAccess, ResourceKind},
    tagged::{self, RELEASE_LIMIT},
};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
};

/// Hooks to be run when the vif goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The tag in the environment of the hooks.
    tag: String,
    offline: Vec<Command>,
}

impl Hooks {
    /// Runs the `online` commands in their order, until one fails: that one is returned with its output.
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        grant: &HookGrant,
        online: &[Command],
        offline: Vec<Command>,
        deadline: Instant,
    ) -> Result<Result<(), (String, Output)>, ResourceError> {
        let tag = resources.own_tag();
        let intent = Self {
            tag: tag.clone(),
            offline,
        };
        resources.acquire(intent, |_| {
            for hook in online {
                let left = deadline.saturating_duration_since(Instant::now());
                let output = access
                    .platform
                    .process
                    .run_recorded(grant.process(), hook, &tag, left)?;
                if output.code != 0 {
                    return Ok(Err((hook.helper.clone(), output)));
                }
            }
            Ok(Ok(()))
        })
    }
}

impl ResourceKind for Hooks {
    fn describe(&self) -> String {
        let names: Vec<&str> = self.offline.iter().map(|hook| &*hook.helper).collect();
        format!("hooks to run at the end: {}", names.join(", "))
    }

    fn release(&self, _: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        let (process, grant) = (&*access.platform.process, access.process()?);
        for hook in &self.offline {
            // Nobody can mend what a hook makes of its call, and another try would be a second call.
            match process.run_recorded(grant, hook, &self.tag, RELEASE_LIMIT) {
                Ok(output) if output.code == 0 => {}
                Ok(output) => warn!(hook = hook.helper, code = output.code, "hook failed as its vif went"),
                Err(error) => warn!(hook = hook.helper, %error, "hook was not run as its vif went"),
            }
        }
        tagged::end(process, &self.tag)
    }
}
