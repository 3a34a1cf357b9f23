//! The helpers that go on: which devices each serves, and whether it still does. The last device to go ends it.
//!
//! Who is served is counted by the journal: each device's record holds the helper as an effect of its own, with the
//! same tag, and gives up its own part of it alone.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};
use xenplug_system::{Error, Process, process::HelperProcess};
use xenplug_xenbus::{DeviceInstance, DeviceKey, DomId, Kind};

mod words;

use words::Words;

/// How long a helper has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// The same for one that serves a guest: it may have to write back what the guest wrote.
const LONG_GRACE: Duration = Duration::from_secs(8);

/// What the store says of devices that a helper serves, and of helpers. Its calls may block.
pub trait Backends: Send + Sync {
    /// Whether a device's backend has left state 1: who serves it has taken it up.
    fn taken_up(&self, device: &DeviceKey) -> Result<bool, String>;

    /// Whether a helper may be started to serve a guest's devices, of which this is the first. The error says why not.
    fn startable(&self, device: &DeviceKey) -> Result<(), String>;

    /// The helper has ended that was the backend of a guest's devices: nobody closes those any more that it had taken up, and
    /// what it wrote about itself is of no use.
    fn ended(&self, role: &HelperKey);
}

/// Which helper serves which guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperKey {
    /// Whose helper it is.
    pub plugin: String,
    /// Its name in the configuration.
    pub helper: String,
    /// Which of the guest's devices it serves.
    pub kind: Kind,
    /// The guest.
    pub guest: DomId,
}

/// All helpers of this daemon that go on, by tag.
#[derive(Default)]
pub struct Services {
    table: Mutex<HashMap<String, Service>>,
    backends: Option<Box<dyn Backends>>,
}

/// One helper.
struct Service {
    /// What it does for all devices of a guest; none for one that a device has for itself.
    role: Option<HelperKey>,
    users: Vec<DeviceInstance>,
    stage: Stage,
    words: Words,
}

enum Stage {
    /// Its first device starts it; or, after a restart, it is looked for.
    Starting,
    /// It runs, as far as is known.
    Running(HelperProcess),
    /// It has ended by itself.
    Lost(HelperProcess),
    /// Nobody is left, and it is being ended.
    Ending,
}

/// How a device takes part.
pub(crate) enum Joined {
    /// In one that runs.
    Running(String, HelperProcess),
    /// As the first one, with this tag.
    First(String),
    /// Not now: it is being started or ended.
    Later,
}

impl Services {
    /// Asks a store about the devices.
    pub fn told_by(backends: Box<dyn Backends>) -> Self {
        Self {
            table: Mutex::default(),
            backends: Some(backends),
        }
    }

    /// Takes part in the helper that serves a guest. Whoever is the first has to start it, and to tell how that went:
    /// [`Services::runs`] or [`Services::leave`].
    pub(crate) fn join(&self, process: &dyn Process, role: &HelperKey, part: &DeviceInstance) -> Joined {
        let mut table = self.table();
        let Some((tag, service)) = table
            .iter_mut()
            .find(|(_, service)| service.role.as_ref() == Some(role))
        else {
            let tag = role.new_tag();
            table.insert(tag.clone(), Service::new(Some(role.clone()), part, Stage::Starting));
            return Joined::First(tag);
        };
        let kept = match &service.stage {
            Stage::Running(kept) if process.running(kept) => kept.clone(),
            // Those whom a lost one served are about to leave it.
            _ => return Joined::Later,
        };
        service.add(part);
        Joined::Running(tag.clone(), kept)
    }

    /// A helper was started.
    pub(crate) fn runs(&self, tag: &str, kept: &HelperProcess, part: &DeviceInstance) {
        let mut table = self.table();
        let service = table
            .entry(tag.to_owned())
            .or_insert_with(|| Service::new(None, part, Stage::Starting));
        service.is_known(Some(kept));
    }

    /// Takes up, after a restart, that a record counts on a helper. If nothing is known but that it was about to be
    /// started, [`Services::runs`] tells once it was found, or [`Services::leave`] that it is not there.
    pub(crate) fn resume(
        &self,
        tag: &str,
        kept: Option<&HelperProcess>,
        role: Option<HelperKey>,
        part: &DeviceInstance,
    ) {
        let mut table = self.table();
        let service = table
            .entry(tag.to_owned())
            .or_insert_with(|| Service::new(role, part, Stage::Starting));
        service.add(part);
        service.is_known(kept);
    }

    /// A device needs a helper no more. If it was the last one, the helper is ended, with all that carries its tag.
    /// Leaving twice, or what one never had, is no error.
    pub(crate) fn leave(
        &self,
        process: &dyn Process,
        tag: &str,
        kept: Option<&HelperProcess>,
        role: Option<&HelperKey>,
        part: &DeviceInstance,
    ) -> Result<(), Error> {
        let known = match self.table().get_mut(tag) {
            Some(service) => {
                service.users.retain(|user| user != part);
                if !service.users.is_empty() {
                    return Ok(());
                }
                let known = service.kept().cloned();
                service.stage = Stage::Ending;
                known
            }
            None => None,
        };
        let grace = if role.is_some() { LONG_GRACE } else { GRACE };
        for kept in known.as_ref().or(kept).cloned().into_iter().chain(process.find(tag)?) {
            process.end(&kept, grace)?;
        }
        if let (Some(role), Some(backends)) = (role, &self.backends)
            && role.kind.connects_itself()
        {
            backends.ended(role);
        }
        self.table().remove(tag);
        Ok(())
    }

    /// Looks after all helpers: writes to the log what they say, and finds those that have ended by themselves. Answers
    /// with the devices that these served.
    pub fn tend(&self, process: &dyn Process) -> Vec<DeviceInstance> {
        let running: Vec<(String, HelperProcess)> = {
            let table = self.table();
            let running = |(tag, service): (&String, &Service)| match &service.stage {
                Stage::Running(kept) => Some((tag.clone(), kept.clone())),
                _ => None,
            };
            table.iter().filter_map(running).collect()
        };
        let mut lost = Vec::new();
        for (tag, kept) in running {
            let runs = process.running(&kept);
            // After that look: these are its last words then.
            self.hear(process, &tag, &kept);
            if runs {
                continue;
            }
            if let Some(service) = self.table().get_mut(&tag)
                && matches!(service.stage, Stage::Running(_))
            {
                warn!(helper = kept.helper, pid = kept.pid, "a helper has ended by itself");
                service.stage = Stage::Lost(kept);
                lost.extend(service.users.iter().cloned());
            }
        }
        lost
    }

    /// Whether one serves all the guest's devices of this kind, or is about to.
    pub fn serve(&self, device: &DeviceKey) -> bool {
        let serves = |service: &Service| {
            let role = service.role.as_ref();
            role.is_some_and(|role| role.guest == device.frontend && role.kind == device.kind)
                && matches!(service.stage, Stage::Starting | Stage::Running(_))
        };
        self.table().values().any(serves)
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    /// How a helper was lost, if it was.
    pub(crate) fn lost(&self, tag: &str) -> Option<String> {
        match self.table().get(tag) {
            Some(Service {
                stage: Stage::Lost(kept),
                words,
                ..
            }) => Some(words.after(format!("{} has ended by itself", kept.helper))),
            _ => None,
        }
    }

    /// Whether a device was taken up by what serves it.
    pub(crate) fn taken_up(&self, device: &DeviceKey) -> Result<bool, String> {
        match &self.backends {
            Some(backends) => backends.taken_up(device),
            None => Err("nobody tells whether the device was taken up".to_owned()),
        }
    }

    /// Whether a helper may be started that serves a guest's devices, of which this is the first.
    pub(crate) fn startable(&self, device: &DeviceKey) -> Result<(), String> {
        match &self.backends {
            Some(backends) => backends.startable(device),
            None => Ok(()),
        }
    }

    /// How many lines a helper has written, as far as they were heard.
    pub(crate) fn heard(&self, tag: &str) -> u64 {
        self.table().get(tag).map_or(0, |service| service.words.count())
    }

    /// Hears a helper, and answers with the line after the first `after` ones that holds a text.
    pub(crate) fn line_with(
        &self,
        process: &dyn Process,
        tag: &str,
        kept: &HelperProcess,
        after: u64,
        text: &str,
    ) -> Option<String> {
        self.hear(process, tag, kept);
        self.table().get(tag)?.words.line_with(after, text)
    }

    /// A cause, with the last line that a helper has written.
    pub(crate) fn with_last_words(
        &self,
        process: &dyn Process,
        tag: &str,
        kept: &HelperProcess,
        cause: String,
    ) -> String {
        self.hear(process, tag, kept);
        match self.table().get(tag) {
            Some(service) => service.words.after(cause),
            None => cause,
        }
    }

    fn hear(&self, process: &dyn Process, tag: &str, kept: &HelperProcess) {
        let mut table = self.table();
        let Some(service) = table.get_mut(tag) else { return };
        for line in service.words.hear(&process.said(kept)) {
            info!(helper = kept.helper, pid = kept.pid, "{line}");
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Service>> {
        // Every change is complete before anything can panic, so a poisoned table is still a true one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service {
    fn new(role: Option<HelperKey>, part: &DeviceInstance, stage: Stage) -> Self {
        Self {
            role,
            users: vec![part.clone()],
            stage,
            words: Words::default(),
        }
    }

    fn add(&mut self, part: &DeviceInstance) {
        if !self.users.contains(part) {
            self.users.push(part.clone());
        }
    }

    fn is_known(&mut self, kept: Option<&HelperProcess>) {
        if let (Stage::Starting, Some(kept)) = (&self.stage, kept) {
            self.stage = Stage::Running(kept.clone());
        }
    }

    fn kept(&self) -> Option<&HelperProcess> {
        match &self.stage {
            Stage::Running(kept) | Stage::Lost(kept) => Some(kept),
            Stage::Starting | Stage::Ending => None,
        }
    }
}

impl HelperKey {
    /// A tag that no other helper has, whichever daemon started it.
    fn new_tag(&self) -> String {
        let since = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let Self {
            plugin,
            helper,
            kind,
            guest,
        } = self;
        format!("xenplug:{plugin}/{helper}/{kind}/{guest}:{:x}", since.as_micros())
    }
}

#[cfg(test)]
mod tests;
