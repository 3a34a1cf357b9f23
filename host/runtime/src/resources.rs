//! What one device holds: its journal record and the mirror of it, from the first intent to the last release.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use xenplug_journal::{Held, Journal, Record, Replayed};
use xenplug_system::{Error, Locks, Platform, process::HelperProcess};
use xenplug_xenbus::{DeviceInstance, Identity, VifType};

use crate::{Claim, Effect, Grants, HelperKey, Limits, SharedResources, effect::Undo};

/// The note of a record whose effects are being given back, or have been.
const RELEASING: &str = "releasing";

/// Whose record it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The device, with its virtual machine.
    pub identity: Identity,
    /// The plugin that serves it.
    pub plugin: String,
    /// See [`crate::Device::vms`].
    pub vms: Vec<String>,
    /// Whether xenstored knew the frontend domain then: if it did and no longer does, the domain is gone.
    pub introduced: bool,
    /// What of the device the record is about.
    #[serde(default)]
    pub vif_type: VifType,
    /// See [`crate::Device::parameters`]: a daemon that begins anew what this one began begins it with them.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

impl Header {
    /// What the record is about.
    pub fn part(&self) -> DeviceInstance {
        DeviceInstance {
            device: self.identity.key.clone(),
            vif_type: self.vif_type,
        }
    }

    /// What a helper does that serves all devices of the guest.
    pub(crate) fn service(&self, helper: &str) -> HelperKey {
        HelperKey {
            plugin: self.plugin.clone(),
            helper: helper.to_owned(),
            kind: self.identity.key.kind.clone(),
            guest: self.identity.key.frontend,
        }
    }
}

/// Why a device cannot hold something.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The journal cannot be written, so nothing was attempted.
    #[error("the journal cannot be written, so nothing was changed: {0}")]
    Journal(#[from] xenplug_journal::Error),
    /// More than any device needs: the handler is out of its mind.
    #[error("the device holds as much as it may")]
    TooMuch,
    /// The machine refused.
    #[error(transparent)]
    Platform(#[from] Error),
}

/// What one device holds.
#[derive(Debug)]
pub struct DeviceResources {
    header: Header,
    record: Record,
    held: Vec<Held<Effect>>,
    began: SystemTime,
    note: Option<String>,
    /// The scripts' locks that are held until the device is published, or has failed.
    locks: Vec<Locked>,
}

/// A lock of the original scripts, given back when it is dropped. It goes with the process, and so is in no journal.
struct Locked {
    locks: Arc<dyn Locks>,
    name: &'static str,
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.locks.give_back(self.name);
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The helper with a tag, if it runs.
fn find_running(system: &Platform, tag: &str) -> Option<HelperProcess> {
    let found = system.process.find(tag).unwrap_or_default();
    found.into_iter().find(|kept| system.process.running(kept))
}

impl DeviceResources {
    /// Begins a record, before anything is done for the device.
    pub fn begin(journal: &Journal, header: Header) -> Result<Self, ResourceError> {
        let name = header.part().to_string().replace('/', "-");
        let record = journal.begin(&name, &header)?;
        Ok(Self {
            header,
            record,
            held: Vec::new(),
            began: SystemTime::now(),
            note: None,
            locks: Vec::new(),
        })
    }

    /// Takes up a record that an earlier daemon left. All have to be taken up before one is released: what several hold
    /// is undone with the last of them.
    pub fn resume(replayed: Replayed<Header, Effect>, shared: &SharedResources) -> Self {
        let header = &replayed.header;
        for held in &replayed.held {
            match &held.effect {
                Effect::Command { undo, .. } => shared.undo.hold(undo, &header.part()),
                Effect::Helper { tag, kept, role } if kept.is_some() || role.is_some() => {
                    shared.helpers.resume(tag, kept.as_ref(), role.clone(), &header.part());
                }
                _ => {}
            }
        }
        Self {
            header: replayed.header,
            record: replayed.record,
            held: replayed.held,
            began: replayed.began,
            note: replayed.note,
            locks: Vec::new(),
        }
    }

    /// The number of the link that was changed for the device, if one was.
    pub fn link(&self) -> Option<u32> {
        self.held.iter().find_map(|held| match held.effect {
            Effect::Link { index, .. } => Some(index),
            _ => None,
        })
    }

    /// The handler that claimed what the device uses has ended.
    pub(crate) fn settle(&self, shared: &SharedResources) {
        for held in &self.held {
            if let Effect::Claim { source, .. } = &held.effect {
                shared.claims.handler_returned(*source, &self.header.identity.key);
            }
        }
    }

    /// Whose it is.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Since when.
    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// What is held, oldest first, in words.
    pub fn describe(&self) -> Vec<String> {
        self.held.iter().map(|held| held.effect.describe()).collect()
    }

    /// Remembers how far the device has come, for a restart.
    pub fn note(&mut self, text: &str) -> Result<(), ResourceError> {
        self.record.note(text)?;
        self.note = Some(text.to_owned());
        Ok(())
    }

    /// The tag by which the kernel knows what belongs to this device: unique to this record, at most 63 bytes.
    pub(crate) fn tag(&self) -> String {
        let since = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}{:x}", Self::tags(&self.header.part()), since.as_micros())
    }

    /// What the tags of all that was ever held for a device begin with.
    pub fn tags(part: &DeviceInstance) -> String {
        // A kind has at most 32 bytes; the time makes the tag unique, so the rest may be cut.
        format!("xenplug:{:.32}:", part.to_string())
    }

    /// Keeps the original scripts out of a section until [`DeviceResources::unlock`].
    pub(crate) fn lock(&mut self, locks: &Arc<dyn Locks>, name: &'static str, patience: Duration) -> Result<(), Error> {
        if self.locks.iter().any(|held| held.name == name) {
            return Ok(());
        }
        locks.take(name, patience)?;
        self.locks.push(Locked {
            locks: Arc::clone(locks),
            name,
        });
        Ok(())
    }

    /// Lets the original scripts in again: what they look for is published, or will not be.
    pub fn unlock(&mut self) {
        self.locks.clear();
    }

    /// A tag for the processes of one effect alone.
    pub(crate) fn own_tag(&self) -> String {
        format!("{}.{:x}", self.tag(), self.record.next())
    }

    /// Makes an effect: writes the intent, acts, and writes the outcome. `act` answers with the effect as it came to be.
    /// If it fails, the intent stays until [`DeviceResources::release`], since part of it may have been done.
    pub(crate) fn acquire<T>(
        &mut self,
        intent: Effect,
        act: impl FnOnce() -> Result<(Effect, T), Error>,
    ) -> Result<T, ResourceError> {
        if self.held.len() >= Limits::EFFECTS {
            return Err(ResourceError::TooMuch);
        }
        let seq = self.record.intent(&intent)?;
        self.held.push(Held {
            seq,
            effect: intent,
            completed: false,
            at: SystemTime::now(),
        });
        let (effect, value) = act()?;
        let written = self.record.completed(seq, &effect);
        if let Some(last) = self.held.last_mut() {
            // Even if the outcome could not be written it is known in here, and undone from here.
            last.effect = effect;
            last.completed = written.is_ok();
        }
        written?;
        Ok(value)
    }

    /// Gives up the effect that was made last, of which nothing is left to undo.
    pub(crate) fn forget_last(&mut self) -> Result<(), ResourceError> {
        if let Some(last) = self.held.pop() {
            self.record.released(last.seq)?;
        }
        Ok(())
    }

    /// Takes hold again, after a restart, of what the record says: loop devices, claims and helpers. Answers with what is
    /// gone.
    pub fn adopt(&mut self, system: &Platform, grants: &Grants, shared: &SharedResources) -> Vec<String> {
        let mut gone = Vec::new();
        let part = self.header.part();
        for held in &mut self.held {
            if let Effect::Helper {
                tag,
                kept: kept @ None,
                role: Some(_),
            } = &mut held.effect
                && let Some(found) = find_running(system, tag)
            {
                // It was started, or joined, and that could not be written any more.
                shared.helpers.started(tag, &found, &part);
                *kept = Some(found);
                held.completed = self.record.completed(held.seq, &held.effect).is_ok();
            }
            if !held.completed {
                gone.push(format!("{}: was not finished", held.effect.describe()));
                continue;
            }
            match &mut held.effect {
                Effect::Claim { source, sharing } => {
                    let claim = Claim {
                        device: self.header.identity.key.clone(),
                        vms: self.header.vms.clone(),
                        sharing: *sharing,
                    };
                    shared.claims.reclaim(*source, claim);
                }
                Effect::Loop {
                    device: Some(device), ..
                } => {
                    let adopted = match &grants.block {
                        Some(grant) => system.block.adopt_loop(grant, device),
                        None => Err(Error::Denied("loop devices are no longer granted".to_owned())),
                    };
                    match adopted {
                        Ok(Some(same)) => *device = same,
                        Ok(None) => gone.push(format!("loop{} is gone", device.number)),
                        Err(error) => gone.push(format!("loop{}: {error}", device.number)),
                    }
                }
                Effect::Helper { kept: Some(kept), .. } if !system.process.running(kept) => {
                    gone.push(format!("{} has ended", kept.helper));
                }
                // One that cannot be asked for is not taken from its guest for that.
                Effect::Link { index, name, .. } if matches!(system.network.link_by_index(*index), Ok(None)) => {
                    gone.push(format!("link {name} is gone"));
                }
                _ => {}
            }
        }
        gone
    }

    /// Whether it takes part in a helper that serves the whole guest.
    pub fn takes_part(&self) -> bool {
        let shared = |held: &Held<Effect>| matches!(held.effect, Effect::Helper { role: Some(_), .. });
        self.held.iter().any(shared)
    }

    /// How a helper was lost that the device needs, if one was.
    pub fn lost(&self, shared: &SharedResources) -> Option<String> {
        self.held.iter().find_map(|held| match &held.effect {
            Effect::Helper { tag, .. } => shared.helpers.loss(tag),
            _ => None,
        })
    }

    /// Whether it is being given back, or has been: what is left of it is no longer a whole.
    pub fn is_releasing(&self) -> bool {
        self.note.as_deref() == Some(RELEASING)
    }

    /// Gives everything back, newest first, and goes on past errors. Answers with what could not be given back, which
    /// stays held.
    pub fn release(&mut self, system: &Platform, authority: &Grants, shared: &SharedResources) -> Vec<String> {
        self.unlock();
        if !self.is_releasing() {
            // What cannot be noted is given back all the same.
            let _ = self.note(RELEASING);
        }
        let mut failures = Vec::new();
        let mut kept = Vec::new();
        let part = self.header.part();
        let by = Undo {
            system,
            authority,
            shared,
            part: &part,
        };
        while let Some(held) = self.held.pop() {
            match held.effect.undo(&by) {
                Ok(()) => {
                    // If this cannot be written, a restart undoes it once more, which is no error.
                    let _ = self.record.released(held.seq);
                }
                Err(error) => {
                    failures.push(format!("{}: {error}", held.effect.describe()));
                    kept.push(held);
                }
            }
        }
        kept.reverse();
        self.held = kept;
        failures
    }

    /// Whether anything is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Ends the record. Only when nothing is held.
    pub fn end(&self) -> Result<(), ResourceError> {
        Ok(self.record.end()?)
    }
}
