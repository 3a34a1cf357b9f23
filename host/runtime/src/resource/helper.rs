//! A helper process: one that runs to its end, one that the device has for itself, or a use of a shared one.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use xenplug_system::{
    Error,
    process::{HelperProcess, Output},
};

use super::{
    kind::{AnyKind, HostAccess, ResourceKind},
    tagged,
};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
    shared::{HelperKey, Joined, SharedResources},
};

/// A helper process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Helper {
    /// The tag in the environment of the helper and its children.
    tag: String,
    /// The process, once it is known. None for a helper that runs to its end: what it leaves running has the tag.
    process: Option<HelperProcess>,
    /// The identity of a shared helper, which ends with its last device.
    key: Option<HelperKey>,
}

impl Helper {
    /// Runs a helper to its end. Nothing stays held unless it leaves processes running.
    pub(crate) fn run<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        helper: &str,
        arguments: &[String],
        limit: Duration,
    ) -> Result<Output, ResourceError> {
        let (process, grant) = (&access.platform.process, access.process()?);
        let tag = resources.own_tag();
        let ran = resources.acquire(Self::tagged(&tag, None), |_| {
            process.run(grant, helper, arguments, &tag, limit)
        });
        let intended = ran.as_ref().err().is_none_or(ResourceError::was_attempted);
        if intended && tagged::none_left(&**process, &tag) {
            resources.forget_last()?;
        }
        ran
    }

    /// Starts a helper that runs for as long as the device is connected.
    pub(crate) fn start<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        helper: &str,
        arguments: &[String],
    ) -> Result<HelperProcess, ResourceError> {
        let grant = access.process()?;
        let instance = resources.header().instance();
        let tag = resources.own_tag();
        resources.acquire(Self::tagged(&tag, None), |held| {
            let started = access.platform.process.start(grant, helper, arguments, &tag)?;
            access.shared.helpers.started(&tag, &started, &instance);
            held.process = Some(started.clone());
            Ok(started)
        })
    }

    /// Joins the helper that serves the guest, as its first user or a later one, and starts it if need be.
    pub(crate) fn join<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        key: &HelperKey,
        arguments: &[String],
        joined: Joined,
    ) -> Result<HelperProcess, ResourceError> {
        let (process, grant) = (&access.platform.process, access.process()?);
        let SharedResources { helpers, store, .. } = access.shared;
        let instance = resources.header().instance();
        let (tag, running) = match joined {
            Joined::Running(tag, running) => (tag, Some(running)),
            Joined::First(tag) => (tag, None),
        };
        let joined = resources.acquire(Self::tagged(&tag, Some(key)), |held| {
            let running = match running {
                Some(running) => running,
                None => {
                    let refused = |cause| Error::NotFound(format!("{}: {cause}", key.helper));
                    store.may_start_helper(&instance.device).map_err(refused)?;
                    process.start(grant, &key.helper, arguments, &tag)?
                }
            };
            helpers.started(&tag, &running, &instance);
            held.process = Some(running.clone());
            Ok(running)
        });
        if joined.is_err() {
            // Other devices wait for the helper to be started or to go. What the record holds is released as always.
            helpers.leave(&**process, &tag, None, Some(key), &instance)?;
        }
        joined
    }

    fn tagged(tag: &str, key: Option<&HelperKey>) -> Self {
        Self {
            tag: tag.to_owned(),
            process: None,
            key: key.cloned(),
        }
    }
}

impl ResourceKind for Helper {
    fn describe(&self) -> String {
        match (&self.process, &self.key) {
            (Some(process), None) => format!("{} as process {}", process.helper, process.pid),
            (Some(process), Some(_)) => format!("shared {}, process {}", process.helper, process.pid),
            (None, _) => "processes that a helper has left running".to_owned(),
        }
    }

    fn release(&self, owner: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        access.shared.helpers.leave(
            &*access.platform.process,
            &self.tag,
            self.process.as_ref(),
            self.key.as_ref(),
            &owner.instance(),
        )
    }

    fn verify(&self, access: HostAccess<'_>) -> Result<(), String> {
        match &self.process {
            Some(process) if !access.platform.process.running(process) => Err(format!("{} has ended", process.helper)),
            _ => Ok(()),
        }
    }

    fn register(&self, owner: &Header, shared: &SharedResources) {
        if self.process.is_some() || self.key.is_some() {
            let (process, key) = (self.process.as_ref(), self.key.clone());
            shared.helpers.resume(&self.tag, process, key, &owner.instance());
        }
    }

    /// A shared helper may have been started or joined without that being written.
    fn complete(&mut self, owner: &Header, access: HostAccess<'_>) -> bool {
        let process = &access.platform.process;
        if self.process.is_some() || self.key.is_none() {
            return false;
        }
        let tagged = process.find(&self.tag).unwrap_or_default();
        self.process = tagged.into_iter().find(|found| process.running(found));
        if let Some(running) = &self.process {
            access.shared.helpers.started(&self.tag, running, &owner.instance());
        }
        self.process.is_some()
    }

    fn loss(&self, shared: &SharedResources) -> Option<String> {
        shared.helpers.loss(&self.tag)
    }

    fn is_shared_helper(&self) -> bool {
        self.key.is_some()
    }
}
