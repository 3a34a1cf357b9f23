//! The life of a held resource, whatever its kind: describe, release, verify, reclaim.

use serde::Serialize;
use xenplug_system::{
    Error, Platform,
    grant::{BlockGrant, FirewallGrant, NetworkGrant, ProcessGrant},
};

use crate::{grants::Grants, header::Header, shared::SharedResources};

/// One kind of resource, in a file of its own: `acquire` journals the intent and makes the effect, this trait has the
/// rest of its life. A value is what the journal keeps: enough to undo the effect, whether or not it is known to have
/// happened.
pub trait ResourceKind {
    /// One line for people: `/dev/loop0 on /srv/a.img`.
    fn describe(&self) -> String;

    /// Undoes the effect. An effect that never happened, or is undone already, is no error.
    fn release(&self, owner: &Header, access: HostAccess<'_>) -> Result<(), Error>;

    /// Verifies that the resource is still there. The error says how it was lost; a resource that cannot be asked for
    /// is not taken from its guest for that.
    fn verify(&self, _access: HostAccess<'_>) -> Result<(), String> {
        Ok(())
    }

    /// Takes the verified resource over from an earlier daemon, under the plugin's grants of today. The error says how
    /// it was lost.
    fn reclaim(&mut self, _owner: &Header, access: HostAccess<'_>) -> Result<(), String> {
        self.verify(access)
    }

    /// Registers the use of something shared, as the journal is replayed: before any record's resources are reclaimed
    /// or released, since the last user undoes for all.
    fn register(&self, _owner: &Header, _shared: &SharedResources) {}

    /// Completes a resource of which only the intent was recorded, if it proves to have been acquired.
    fn complete(&mut self, _owner: &Header, _access: HostAccess<'_>) -> bool {
        false
    }

    /// Notes that the handler that acquired the resource has returned.
    fn handler_returned(&self, _owner: &Header, _shared: &SharedResources) {}

    /// Returns how the resource was lost since it was acquired, as far as the daemon has noticed. Never blocks.
    fn loss(&self, _shared: &SharedResources) -> Option<String> {
        None
    }

    /// The number of the link that was changed.
    fn link(&self) -> Option<u32> {
        None
    }

    /// Returns whether this is a use of a helper that serves the whole guest.
    fn is_shared_helper(&self) -> bool {
        false
    }
}

/// A type that holds any kind of resource, as the journal has it.
pub trait AnyKind: Serialize + AsRef<dyn ResourceKind> + AsMut<dyn ResourceKind> {}

impl<T: Serialize + AsRef<dyn ResourceKind> + AsMut<dyn ResourceKind>> AnyKind for T {}

/// Access to the host: the platform, the authority to use it, and what devices share.
#[derive(Clone, Copy)]
pub struct HostAccess<'a> {
    /// The platform on which effects are made.
    pub platform: &'a Platform,
    /// The authority: a plugin's grants, or [`Grants::to_release`].
    pub grants: &'a Grants,
    /// The state that the daemon's devices share.
    pub shared: &'a SharedResources,
}

impl<'a> HostAccess<'a> {
    pub(crate) fn block(&self) -> Result<&'a BlockGrant, Error> {
        granted(self.grants.block.as_ref(), "block")
    }

    pub(crate) fn network(&self) -> Result<&'a NetworkGrant, Error> {
        granted(self.grants.network.as_ref(), "network")
    }

    pub(crate) fn firewall(&self) -> Result<&'a FirewallGrant, Error> {
        granted(self.grants.firewall.as_ref(), "firewall")
    }

    pub(crate) fn process(&self) -> Result<&'a ProcessGrant, Error> {
        granted(self.grants.process.as_ref(), "process")
    }
}

fn granted<'a, T>(grant: Option<&'a T>, interface: &str) -> Result<&'a T, Error> {
    grant.ok_or_else(|| Error::Denied(format!("{interface} is not granted")))
}
