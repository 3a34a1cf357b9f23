//! Helper processes that play a guest's backends: checks before a start, and the consequences of an end.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::warn;
use xenplug_runtime::HelperKey;
use xenplug_xenbus::{AfterRelease, DeviceInstance, DeviceKey, Phase, WriteOutcome, XenbusState};
use xenplug_xenstore::Error;

use crate::device::{DeviceContext, Directory, Registry, device_model};

/// The interval of polls: a guest whose disks are gone learns of it within this time.
const POLL: Duration = Duration::from_millis(500);

/// The helper processes of the daemon, with their devices.
pub(crate) struct Helpers {
    context: Arc<DeviceContext>,
    registry: Arc<Registry>,
}

impl Helpers {
    pub(crate) fn new(context: Arc<DeviceContext>, registry: Arc<Registry>) -> Self {
        Self { context, registry }
    }

    /// Polls all helper processes until the daemon ends, and wakes the devices of those that have ended.
    pub(crate) async fn poll(self: Arc<Self>) {
        let daemon = &self.context.daemon;
        while !daemon.draining.is_cancelled() {
            sleep(POLL).await;
            if self.context.shared.helpers.is_empty() {
                continue;
            }
            let (shared, process) = (Arc::clone(&self.context.shared), Arc::clone(&daemon.platform.process));
            // A panic on a worker thread ends the daemon, see `main`.
            let lost = daemon.workers.run(move || shared.helpers.poll(process.as_ref())).await;
            let lost = lost.unwrap_or_default();
            self.registry.wake_where(|instance| lost.contains(instance));
        }
    }

    /// Tests whether a device's backend has left state 1.
    pub(crate) async fn backend_started(&self, device: &DeviceKey) -> Result<bool, String> {
        let daemon = &self.context.daemon;
        let state = format!("{}/{device}/state", daemon.backend_root());
        let state = state.parse().expect("a path of numbers and a checked kind is a path");
        match daemon.store.read(&state).await {
            Ok(state) => {
                let state = XenbusState::parse(&String::from_utf8_lossy(&state));
                Ok(!matches!(state, XenbusState::Initialising | XenbusState::Unknown))
            }
            Err(error) => Err(format!("cannot read the backend's state: {error}")),
        }
    }

    /// Tests whether a helper process may be started for a guest. Two QEMUs would open the same images, and one QEMU
    /// cannot go on with what another has begun.
    pub(crate) async fn may_start(&self, device: &DeviceKey) -> Result<(), String> {
        let guest = device.frontend;
        match device_model::has_device_model(&self.context.daemon, guest).await {
            Ok(false) => {}
            Ok(true) => {
                return Err(format!(
                    "the toolstack has started one for domain {guest}, which serves all its disks: attach them with `xl \
                     block-attach`"
                ));
            }
            Err(error) => return Err(format!("cannot read whether the toolstack has started one: {error}")),
        }
        if self.backend_started(device).await? {
            return Err("the one that served the device has ended, and another cannot serve it".to_owned());
        }
        Ok(())
    }

    /// Publishes the end of a helper process to the devices that it served, which nobody closes any more. They may be more
    /// than those whose handlers joined it.
    pub(crate) async fn ended(&self, key: &HelperKey) -> Result<(), Error> {
        let daemon = &self.context.daemon;
        device_model::forget_device_model(daemon, key.guest).await?;
        let error = format!("{}: {}, which served the device, has ended", key.plugin, key.helper);
        let directory = daemon.backend_root().join(&format!("{}/{}", key.kind, key.guest))?;
        let devices = match daemon.store.directory(&directory).await {
            Err(error) if error.is_not_found() => return Ok(()),
            devices => devices?,
        };
        for devid in devices.iter().filter_map(|name| name.parse().ok()) {
            let device = DeviceKey {
                kind: key.kind.clone(),
                frontend: key.guest,
                devid,
            };
            let instance = DeviceInstance::main(device.clone());
            let releasing_with_failure = Phase::Releasing {
                then: AfterRelease::PublishFailure,
            };
            if self.registry.phase(&instance) == Some(releasing_with_failure) {
                // Its own failure says more.
                continue;
            }
            let directory = Directory::of(&self.context, instance, Phase::Absent);
            if directory.abandon(&error).await? == WriteOutcome::Done {
                warn!(%device, "{device}: not connected any more: {error}");
            }
        }
        Ok(())
    }
}
