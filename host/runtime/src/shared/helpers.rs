//! Helper processes that keep running: the devices that each serves, and whether it still runs. The helper ends with
//! its last device.
//!
//! The journal counts the users: each device's record holds the helper as a resource of its own, with the same tag.

mod output;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{info, warn};
use xenplug_system::{Error, Process, process::HelperProcess};
use xenplug_xenbus::{DeviceInstance, DeviceKey};

use self::output::Output;
use super::{Changes, HelperKey, StoreQueries};

/// Time between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// The same for a helper that serves a guest: it may have to write back what the guest wrote.
const LONG_GRACE: Duration = Duration::from_secs(8);

/// All helpers of this daemon that keep running, by tag.
pub struct SharedHelpers {
    table: Mutex<HashMap<String, Helper>>,
    store: Arc<dyn StoreQueries>,
    changes: Changes,
}

/// One helper.
struct Helper {
    /// None for a helper that one device has for itself.
    key: Option<HelperKey>,
    users: Vec<DeviceInstance>,
    stage: Stage,
    output: Output,
}

enum Stage {
    /// Its first device starts it; or, after a restart of the daemon, it is looked for.
    Starting,
    /// It runs, as far as is known.
    Running(HelperProcess),
    /// It has ended by itself.
    Lost(HelperProcess),
    /// No user is left, and it is being ended.
    Ending,
}

/// The way in which a device joins a helper.
pub(crate) enum Joined {
    /// As one more user of a running helper.
    Running(String, HelperProcess),
    /// As the first user, which starts the helper with this tag.
    First(String),
}

impl Joined {
    pub(crate) fn tag(&self) -> &str {
        match self {
            Self::Running(tag, _) | Self::First(tag) => tag,
        }
    }
}

impl SharedHelpers {
    pub(super) fn new(store: Arc<dyn StoreQueries>, changes: Changes) -> Self {
        Self {
            table: Mutex::default(),
            store,
            changes,
        }
    }

    /// Joins the helper that serves a guest; none while it is being started or ended. The first user starts the helper,
    /// and then calls [`SharedHelpers::started`], or [`SharedHelpers::leave`] if it could not.
    pub(crate) fn try_join(&self, process: &dyn Process, key: &HelperKey, instance: &DeviceInstance) -> Option<Joined> {
        let mut table = self.table();
        let known = table.iter_mut().find(|(_, helper)| helper.key.as_ref() == Some(key));
        let Some((tag, helper)) = known else {
            let tag = key.new_tag();
            table.insert(tag.clone(), Helper::new(Some(key.clone()), instance, Stage::Starting));
            return Some(Joined::First(tag));
        };
        let running = match &helper.stage {
            Stage::Running(running) if process.running(running) => running.clone(),
            // The users of a lost helper are about to leave it.
            _ => return None,
        };
        helper.add(instance);
        Some(Joined::Running(tag.clone(), running))
    }

    /// Notes that a helper was started.
    pub(crate) fn started(&self, tag: &str, running: &HelperProcess, instance: &DeviceInstance) {
        self.table()
            .entry(tag.to_owned())
            .or_insert_with(|| Helper::new(None, instance, Stage::Starting))
            .found(Some(running));
        self.changes.notify();
    }

    /// Notes, after a restart, that a record counts on a helper. If the record does not tell the process,
    /// [`SharedHelpers::started`] does once it is found, or [`SharedHelpers::leave`] ends the search.
    pub(crate) fn resume(
        &self,
        tag: &str,
        running: Option<&HelperProcess>,
        key: Option<HelperKey>,
        instance: &DeviceInstance,
    ) {
        let mut table = self.table();
        let helper = table
            .entry(tag.to_owned())
            .or_insert_with(|| Helper::new(key, instance, Stage::Starting));
        helper.add(instance);
        helper.found(running);
    }

    /// Removes a device from a helper's users, and ends the helper, with all processes of its tag, after the last one.
    /// A second call, or a call for a helper that never was, is no error.
    pub(crate) fn leave(
        &self,
        process: &dyn Process,
        tag: &str,
        running: Option<&HelperProcess>,
        key: Option<&HelperKey>,
        instance: &DeviceInstance,
    ) -> Result<(), Error> {
        let known = match self.table().get_mut(tag) {
            Some(helper) => {
                helper.users.retain(|user| user != instance);
                if !helper.users.is_empty() {
                    return Ok(());
                }
                let known = helper.process().cloned();
                helper.stage = Stage::Ending;
                known
            }
            None => None,
        };
        let grace = if key.is_some() { LONG_GRACE } else { GRACE };
        for found in known
            .as_ref()
            .or(running)
            .cloned()
            .into_iter()
            .chain(process.find(tag)?)
        {
            process.end(&found, grace)?;
        }
        if let Some(key) = key.filter(|key| key.kind.connects_itself()) {
            self.store.helper_ended(key);
        }
        self.table().remove(tag);
        self.changes.notify();
        Ok(())
    }

    /// Logs the output of all helpers, and finds those that have ended by themselves. Returns the devices that these
    /// served.
    pub fn poll(&self, process: &dyn Process) -> Vec<DeviceInstance> {
        let running: Vec<(String, HelperProcess)> = {
            let table = self.table();
            let running = |(tag, helper): (&String, &Helper)| match &helper.stage {
                Stage::Running(running) => Some((tag.clone(), running.clone())),
                _ => None,
            };
            table.iter().filter_map(running).collect()
        };
        let mut lost = Vec::new();
        for (tag, found) in running {
            let runs = process.running(&found);
            // The output is read after that: of a helper that has ended it is complete then.
            self.read_output(process, &tag, &found);
            if runs {
                continue;
            }
            if let Some(helper) = self.table().get_mut(&tag)
                && matches!(helper.stage, Stage::Running(_))
            {
                warn!(helper = found.helper, pid = found.pid, "helper has ended by itself");
                helper.stage = Stage::Lost(found);
                lost.extend(helper.users.iter().cloned());
            }
        }
        lost
    }

    /// Returns whether a helper serves all the guest's devices of this kind, or is about to.
    pub fn serves(&self, device: &DeviceKey) -> bool {
        let serves = |helper: &Helper| {
            let key = helper.key.as_ref();
            key.is_some_and(|key| key.guest == device.frontend && key.kind == device.kind)
                && matches!(helper.stage, Stage::Starting | Stage::Running(_))
        };
        self.table().values().any(serves)
    }

    /// Returns whether no helper is known.
    pub fn is_empty(&self) -> bool {
        self.table().is_empty()
    }

    /// Returns how a helper was lost, if it was.
    pub(crate) fn loss(&self, tag: &str) -> Option<String> {
        match self.table().get(tag) {
            Some(Helper {
                stage: Stage::Lost(lost),
                output,
                ..
            }) => Some(output.explain(format!("{} has ended by itself", lost.helper))),
            _ => None,
        }
    }

    /// The number of lines read so far from a helper.
    pub(crate) fn lines_read(&self, tag: &str) -> u64 {
        self.table().get(tag).map_or(0, |helper| helper.output.count())
    }

    /// Reads a helper's output, and returns the newest line after the first `after` lines that holds a text.
    pub(crate) fn line_with(
        &self,
        process: &dyn Process,
        running: &HelperProcess,
        after: u64,
        text: &str,
    ) -> Option<String> {
        self.read_output(process, &running.tag, running);
        self.table().get(&running.tag)?.output.line_with(after, text)
    }

    /// A cause, followed by the last line that a helper has written.
    pub(crate) fn explain(&self, process: &dyn Process, running: &HelperProcess, cause: String) -> String {
        self.read_output(process, &running.tag, running);
        match self.table().get(&running.tag) {
            Some(helper) => helper.output.explain(cause),
            None => cause,
        }
    }

    fn read_output(&self, process: &dyn Process, tag: &str, running: &HelperProcess) {
        let mut table = self.table();
        let Some(helper) = table.get_mut(tag) else { return };
        for line in helper.output.add(&process.output(running)) {
            info!(helper = running.helper, pid = running.pid, "{line}");
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Helper>> {
        // Every change is complete before anything can panic, so a poisoned table is still a true one.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Helper {
    fn new(key: Option<HelperKey>, instance: &DeviceInstance, stage: Stage) -> Self {
        Self {
            key,
            users: vec![instance.clone()],
            stage,
            output: Output::default(),
        }
    }

    fn add(&mut self, instance: &DeviceInstance) {
        if !self.users.contains(instance) {
            self.users.push(instance.clone());
        }
    }

    fn found(&mut self, running: Option<&HelperProcess>) {
        if let (Stage::Starting, Some(running)) = (&self.stage, running) {
            self.stage = Stage::Running(running.clone());
        }
    }

    fn process(&self) -> Option<&HelperProcess> {
        match &self.stage {
            Stage::Running(process) | Stage::Lost(process) => Some(process),
            Stage::Starting | Stage::Ending => None,
        }
    }
}
