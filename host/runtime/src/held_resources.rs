//! The resources that one device holds: its journal record and a mirror of it, from the first intent to the last
//! release.

use std::time::SystemTime;

use xenplug_journal::{Held, Journal, Record, Replayed};
use xenplug_system::Error;
use xenplug_xenbus::DeviceInstance;

use crate::{
    header::Header,
    limits::Limits,
    resource::kind::{AnyKind, HostAccess, ResourceKind},
    shared::SharedResources,
};

/// The note of a record whose resources are being released, or have been.
const RELEASING: &str = "releasing";

/// A resource that a device could not acquire.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The journal cannot be written, so nothing was attempted.
    #[error("the journal cannot be written, so nothing was changed")]
    Journal(#[from] xenplug_journal::Error),
    /// The device holds as many resources as a device may, so nothing was attempted.
    #[error("the device holds as much as it may")]
    TooMany,
    /// The platform refused.
    #[error(transparent)]
    Platform(#[from] Error),
    /// The store does not tell what must be known.
    #[error("{0}")]
    Store(String),
}

impl ResourceError {
    /// Returns whether the resource's intent was recorded and its effect attempted.
    pub(crate) fn was_attempted(&self) -> bool {
        match self {
            Self::Platform(_) | Self::Store(_) => true,
            Self::Journal(_) | Self::TooMany => false,
        }
    }
}

/// The resources that one device holds. This knows no kinds: see [`crate::Resource`].
#[derive(Debug)]
pub struct HeldResources<R> {
    header: Header,
    record: Record,
    held: Vec<Held<R>>,
    began: SystemTime,
    note: Option<String>,
}

impl<R: AnyKind> HeldResources<R> {
    /// Begins a record, before anything is done for the device.
    pub fn begin(journal: &Journal, header: Header) -> Result<Self, ResourceError> {
        let name = header.instance().to_string().replace('/', "-");
        let record = journal.begin(&name, &header)?;
        Ok(Self {
            header,
            record,
            held: Vec::new(),
            began: SystemTime::now(),
            note: None,
        })
    }

    /// Goes on with the record of an earlier daemon. All records have to be resumed before one is released: what
    /// several share is undone with the last of them.
    pub fn resume(replayed: Replayed<Header, R>, shared: &SharedResources) -> Self {
        for held in &replayed.held {
            held.effect.as_ref().register(&replayed.header, shared);
        }
        Self {
            header: replayed.header,
            record: replayed.record,
            held: replayed.held,
            began: replayed.began,
            note: replayed.note,
        }
    }

    /// The number of the link that was changed for the device, if one was.
    pub fn link(&self) -> Option<u32> {
        self.kinds().find_map(ResourceKind::link)
    }

    /// Notes that the handler that acquired the resources has returned.
    pub(crate) fn handler_returned(&self, shared: &SharedResources) {
        self.kinds()
            .for_each(|kind| kind.handler_returned(&self.header, shared));
    }

    /// The record's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// A line for people for each resource, oldest first.
    pub fn describe(&self) -> Vec<String> {
        self.kinds().map(ResourceKind::describe).collect()
    }

    /// Notes in the journal how far the device has come, for a restarted daemon.
    pub fn note(&mut self, text: &str) -> Result<(), ResourceError> {
        self.record.note(text)?;
        self.note = Some(text.to_owned());
        Ok(())
    }

    /// The tag by which the kernel knows what belongs to this device: unique to this record, at most 63 bytes.
    pub(crate) fn tag(&self) -> String {
        let since = self.began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}{:x}", Self::tag_prefix(&self.header.instance()), since.as_micros())
    }

    /// The beginning of the tags of everything that was ever held for a device.
    pub fn tag_prefix(instance: &DeviceInstance) -> String {
        // A kind has at most 32 bytes; the time makes the tag unique, so the rest may be cut.
        format!("xenplug:{:.32}:", instance.to_string())
    }

    /// A tag for the processes of one resource alone.
    pub(crate) fn own_tag(&self) -> String {
        format!("{}.{:x}", self.tag(), self.record.next())
    }

    /// Acquires a resource: writes the intent, makes the effect, and writes the outcome, which `act` notes in the
    /// resource. If `act` fails, the intent stays until [`HeldResources::release`], since part of the effect may have
    /// been made.
    pub(crate) fn acquire<K: Clone + Into<R>, T>(
        &mut self,
        mut resource: K,
        act: impl FnOnce(&mut K) -> Result<T, Error>,
    ) -> Result<T, ResourceError> {
        if self.held.len() >= Limits::RESOURCES {
            return Err(ResourceError::TooMany);
        }
        let intent = resource.clone().into();
        let seq = self.record.intent(&intent)?;
        self.held.push(Held {
            seq,
            effect: intent,
            completed: false,
        });
        let value = act(&mut resource)?;
        let resource = resource.into();
        let written = self.record.completed(seq, &resource);
        if let Some(last) = self.held.last_mut() {
            // The daemon knows the outcome even if it could not be written, and releases by it.
            last.effect = resource;
            last.completed = written.is_ok();
        }
        written?;
        Ok(value)
    }

    /// Forgets the resource that was acquired last, of which nothing is left to release.
    pub(crate) fn forget_last(&mut self) -> Result<(), ResourceError> {
        if let Some(last) = self.held.pop() {
            self.record.released(last.seq)?;
        }
        Ok(())
    }

    /// Verifies, after a restart, what the record says, and takes it over. Returns a line for each resource that is
    /// lost.
    pub fn reclaim(&mut self, access: HostAccess<'_>) -> Vec<String> {
        let mut lost = Vec::new();
        for held in &mut self.held {
            if !held.completed && held.effect.as_mut().complete(&self.header, access) {
                held.completed = self.record.completed(held.seq, &held.effect).is_ok();
            }
            if !held.completed {
                lost.push(format!("{}: was not finished", held.effect.as_ref().describe()));
            } else if let Err(cause) = held.effect.as_mut().reclaim(&self.header, access) {
                lost.push(cause);
            }
        }
        lost
    }

    /// Returns whether the device uses a helper that serves the whole guest.
    pub fn uses_shared_helper(&self) -> bool {
        self.kinds().any(ResourceKind::is_shared_helper)
    }

    /// Returns how a resource was lost that the connected device needs, if one was.
    pub fn loss(&self, shared: &SharedResources) -> Option<String> {
        self.kinds().find_map(|kind| kind.loss(shared))
    }

    /// Returns whether a release was begun: what is still held is no longer a whole.
    pub fn is_releasing(&self) -> bool {
        self.note.as_deref() == Some(RELEASING)
    }

    /// Releases everything, newest first, and goes on past errors. Returns a line for each resource that could not be
    /// released, which stays held.
    pub fn release(&mut self, access: HostAccess<'_>) -> Vec<String> {
        if !self.is_releasing() {
            // A journal that cannot be written keeps nothing from being released.
            let _ = self.note(RELEASING);
        }
        let mut failures = Vec::new();
        let mut kept = Vec::new();
        while let Some(held) = self.held.pop() {
            let kind = held.effect.as_ref();
            match kind.release(&self.header, access) {
                Ok(()) => {
                    // If this cannot be written, a restarted daemon releases it once more, which is no error.
                    let _ = self.record.released(held.seq);
                }
                Err(error) => {
                    failures.push(format!("{}: {error}", kind.describe()));
                    kept.push(held);
                }
            }
        }
        kept.reverse();
        self.held = kept;
        failures
    }

    /// Returns whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Ends the record, which holds nothing any more.
    pub fn end(&self) -> Result<(), ResourceError> {
        Ok(self.record.end()?)
    }

    fn kinds(&self) -> impl Iterator<Item = &(dyn ResourceKind + 'static)> {
        self.held.iter().map(|held| held.effect.as_ref())
    }
}
