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
