//! The host's side of the handles that guests have.

#![allow(
    unreachable_pub,
    reason = "the generated bindings name the handles as if they were public"
)]

use std::sync::Arc;

use xenplug_system::{
    Block,
    block::{LoopDevice, Source},
    grant::Access,
    network::Link,
    process::HelperProcess,
};

/// A source that the guest has open. The platform closes it when the guest, or the event, is done with it.
pub struct OpenSource {
    pub(crate) source: Source,
    pub(crate) access: Access,
    block: Arc<dyn Block>,
}

impl OpenSource {
    pub(crate) fn new(source: Source, access: Access, block: Arc<dyn Block>) -> Self {
        Self { source, access, block }
    }
}

impl Drop for OpenSource {
    fn drop(&mut self) {
        self.block.close(self.source.id);
    }
}

/// A loop device that the device holds.
pub struct HeldLoop(pub(crate) LoopDevice);

/// The device's own link.
pub struct OwnLink {
    pub(crate) index: u32,
    /// The link as it was found, until something is changed.
    pub(crate) found: Option<Link>,
}

/// A bridge within the grant, as it was found.
pub struct GrantedBridge(pub(crate) Link);

/// A helper that the device holds.
pub struct HeldHelper {
    pub(crate) process: HelperProcess,
    /// The number of lines that the helper had written before the device came to it.
    pub(crate) lines_before: u64,
}
