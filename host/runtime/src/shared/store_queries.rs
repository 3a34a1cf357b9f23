//! Questions about the store that handlers' threads ask the daemon.

use xenplug_xenbus::DeviceKey;

use super::{Claim, HelperKey};

/// Questions about the store, which the daemon answers. The calls come from worker threads and may block.
///
/// The errors are texts for people: why the answer is no, or why there is none.
pub trait StoreQueries: Send + Sync {
    /// The devices set up by somebody else, such as the original scripts, that use a block device. The answer covers
    /// everything that was published before the call.
    fn foreign_users(&self, major: u32, minor: u32) -> Result<Vec<Claim>, String>;

    /// Returns whether a device's backend has left state 1 (`XenbusStateInitialising`), which a helper that plays the
    /// backend writes as it begins to serve the device.
    fn backend_started(&self, device: &DeviceKey) -> Result<bool, String>;

    /// Returns whether a shared helper may be started for a guest; `device` is the first that it would serve. The error
    /// says why it may not.
    fn may_start_helper(&self, device: &DeviceKey) -> Result<(), String>;

    /// The backend helper of a guest has ended. Nobody else closes the devices that it served, or removes the nodes
    /// that it wrote about itself.
    fn helper_ended(&self, key: &HelperKey);
}

/// Answers without a store.
pub(super) struct NoStore;

impl StoreQueries for NoStore {
    fn foreign_users(&self, _: u32, _: u32) -> Result<Vec<Claim>, String> {
        Ok(Vec::new())
    }

    fn backend_started(&self, _: &DeviceKey) -> Result<bool, String> {
        Err("there is no store to tell whether the backend has started".to_owned())
    }

    fn may_start_helper(&self, _: &DeviceKey) -> Result<(), String> {
        Ok(())
    }

    fn helper_ended(&self, _: &HelperKey) {}
}
