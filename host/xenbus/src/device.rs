//! Device keys, device instances and the identity of a device.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    DevId, DomId, Kind,
    id::{Error, shortened},
};

/// Key of a device within one backend domain, written `vbd/3/51712`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceKey {
    /// Kind of backend.
    pub kind: Kind,
    /// Domain that uses the device.
    pub frontend: DomId,
    /// Device number.
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

/// Type of a vif's link (`type_if` of the scripts). An emulated vif has one link of each type, and libxl runs a script
/// for each (tools/libs/light/libxl_linux.c, `libxl__hotplug_nic`); every other device is [`VifType::Paravirtual`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VifType {
    /// Backend of the device; its link, if any, is netback's.
    #[default]
    Paravirtual,
    /// Tap through which QEMU emulates the vif.
    Emulated,
}

/// Device, or the tap of an emulated vif, written `vif/3/0` and `vif/3/0-emu`. The tap belongs to the vif's directory
/// in the store and has script calls of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceInstance {
    /// Key of the device.
    pub device: DeviceKey,
    /// Type of the instance's link.
    pub vif_type: VifType,
}

impl DeviceInstance {
    /// Makes the instance of the device itself.
    pub fn main(device: DeviceKey) -> Self {
        Self {
            device,
            vif_type: VifType::Paravirtual,
        }
    }

    /// Returns the initial name of the network link, as netback sets it (drivers/net/xen-netback/interface.c,
    /// `xenvif_alloc`), or libxl for QEMU (tools/libs/light/libxl_nic.c, `libxl__device_nic_devname`).
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

/// Identity of a device across reuse of its domain id: `vm` paths are never reused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Key of the device.
    pub key: DeviceKey,
    /// The frontend domain's `vm` node, such as `/vm/6c1d...`, or `None` if it cannot be read. libxl lets only dom0 and
    /// the guest itself read it, so a driver domain often knows its devices by their keys alone.
    pub vm: Option<String>,
}

impl Identity {
    /// Tells whether both can be the same device: the keys are equal, and so are the `vm` paths if both are known.
    pub fn same_device(&self, other: &Identity) -> bool {
        self.key == other.key
            && match (&self.vm, &other.vm) {
                (Some(one), Some(two)) => one == two,
                _ => true,
            }
    }
}
