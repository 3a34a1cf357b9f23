//! What makes a device the same device: its place in the store, and the virtual machine that it belongs to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    DevId, DomId, Kind,
    id::{Error, shortened},
};

/// A device of one backend domain, written `vbd/3/51712`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceKey {
    /// The kind of backend.
    pub kind: Kind,
    /// The domain that the device is for.
    pub frontend: DomId,
    /// Its number.
    pub devid: DevId,
}

impl fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.frontend, self.devid)
    }
}

impl FromStr for DeviceKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(kind), Some(frontend), Some(devid), None) => Ok(Self {
                kind: kind.parse()?,
                frontend: frontend.parse()?,
                devid: devid.parse()?,
            }),
            _ => Err(Error::Device(shortened(text))),
        }
    }
}

impl TryFrom<String> for DeviceKey {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<DeviceKey> for String {
    fn from(key: DeviceKey) -> Self {
        key.to_string()
    }
}

/// Which of a device's network links. A card that is emulated too has two, and a script is run for each
/// (tools/libs/light/libxl_linux.c, `libxl__hotplug_nic`); all other devices are of the first kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VifType {
    /// The backend itself: the link is netback's, if it has one.
    #[default]
    Paravirtual,
    /// The tap by which QEMU emulates the card.
    Emulated,
}

/// A device, or the tap of an emulated card: it belongs to the card's directory in the store, and comes and goes by
/// calls of its own. Written `vif/3/0` and `vif/3/0-emu`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceInstance {
    /// The device.
    pub device: DeviceKey,
    /// What of it.
    pub vif_type: VifType,
}

impl DeviceInstance {
    /// The device itself.
    pub fn main(device: DeviceKey) -> Self {
        Self {
            device,
            vif_type: VifType::Paravirtual,
        }
    }

    /// The name that its network link is given: by netback (drivers/net/xen-netback/interface.c, `xenvif_alloc`), or for
    /// QEMU by libxl (tools/libs/light/libxl_nic.c, `libxl__device_nic_devname`).
    pub fn link(&self) -> String {
        let DeviceKey { frontend, devid, .. } = &self.device;
        match self.vif_type {
            VifType::Paravirtual => format!("vif{frontend}.{devid}"),
            VifType::Emulated => format!("vif{frontend}.{devid}-emu"),
        }
    }
}

impl fmt::Display for DeviceInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vif_type {
            VifType::Paravirtual => write!(f, "{}", self.device),
            VifType::Emulated => write!(f, "{}-emu", self.device),
        }
    }
}

/// A device of one virtual machine. A domain id is used again; the `vm` node of the domain is not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Its place.
    pub key: DeviceKey,
    /// The frontend domain's `vm` node, such as `/vm/6c1d...`; `None` where it cannot be read: libxl lets no domain but
    /// dom0 and the guest itself read it, so a driver domain often knows its devices by their place alone.
    pub vm: Option<String>,
}

impl Identity {
    /// Whether two sightings can be of the same device: the place is the same, and the virtual machine is, as far as
    /// both tell. One that does not tell proves nothing either way.
    pub fn same_device(&self, other: &Identity) -> bool {
        self.key == other.key
            && match (&self.vm, &other.vm) {
                (Some(mine), Some(theirs)) => mine == theirs,
                _ => true,
            }
    }
}
