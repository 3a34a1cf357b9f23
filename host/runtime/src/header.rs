//! The header of a device's record: the device, its plugin, and what a restarted daemon needs to know of both.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xenplug_xenbus::{DeviceInstance, Identity, VifType};

use crate::shared::HelperKey;

/// The header of a device's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The device, with its virtual machine.
    pub identity: Identity,
    /// The plugin that serves the device.
    pub plugin: String,
    /// See [`crate::Device::vms`].
    pub vms: Vec<String>,
    /// True if xenstored knew the frontend domain then. If it did and no longer does, the domain is gone.
    pub introduced: bool,
    /// The instance of the device that the record is about.
    #[serde(default)]
    pub vif_type: VifType,
    /// See [`crate::Device::parameters`]: a restarted daemon connects the device again with them.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
}

impl Header {
    /// The device instance that the record is about.
    pub fn instance(&self) -> DeviceInstance {
        DeviceInstance {
            device: self.identity.key.clone(),
            vif_type: self.vif_type,
        }
    }

    /// The identity of a helper that serves all devices of the guest.
    pub(crate) fn helper_key(&self, helper: &str) -> HelperKey {
        HelperKey {
            plugin: self.plugin.clone(),
            helper: helper.to_owned(),
            kind: self.identity.key.kind.clone(),
            guest: self.identity.key.frontend,
        }
    }
}
