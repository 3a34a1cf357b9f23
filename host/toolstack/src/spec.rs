//! What xl's syntax says of a device, and the nodes that libxl would write for it.

mod disk;
mod error;
mod rate;
mod vdev;
mod vif;
mod vlan;

#[cfg(test)]
mod tests;

use xenplug_hotplug::Class;
use xenplug_xenbus::{DevId, Kind};

pub use disk::Disk;
pub use error::SpecError;
pub use vdev::dev_number;
pub use vif::Vif;

/// Where a script is that is named without a folder (tools/libs/light/libxl_internal.c, `libxl__abs_path`).
const SCRIPTS: &str = "/etc/xen/scripts";

/// Nodes with their values, in the order in which libxl writes them.
pub type Nodes = Vec<(&'static str, String)>;

/// A device as xl's configuration describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A disk.
    Disk(Disk),
    /// A network vif.
    Vif(Vif),
}

impl Spec {
    /// Reads it.
    pub fn parse(class: Class, text: &str) -> Result<Self, SpecError> {
        match class {
            Class::Vbd => Disk::parse(text).map(Self::Disk),
            Class::Vif => Vif::parse(text).map(Self::Vif),
        }
    }

    /// What it is to the guest.
    pub fn class(&self) -> Class {
        match self {
            Self::Disk(_) => Class::Vbd,
            Self::Vif(_) => Class::Vif,
        }
    }

    /// What serves it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Disk(disk) => disk.kind.clone(),
            Self::Vif(_) => Kind::VIF,
        }
    }

    /// The domain that it says should serve it.
    pub fn backend(&self) -> Option<&str> {
        match self {
            Self::Disk(disk) => disk.backend.as_deref(),
            Self::Vif(vif) => vif.backend.as_deref(),
        }
    }

    /// The device's number; none for a vif that does not say.
    pub fn devid(&self) -> Option<DevId> {
        match self {
            Self::Disk(disk) => Some(disk.devid),
            Self::Vif(vif) => vif.devid,
        }
    }

    /// The nodes of its backend, without those that are the driver domain's to write.
    pub fn backend_nodes(&self, devid: DevId) -> Nodes {
        match self {
            Self::Disk(disk) => disk.backend_nodes(),
            Self::Vif(vif) => vif.backend_nodes(devid),
        }
    }

    /// The nodes of its frontend, likewise.
    pub fn frontend_nodes(&self, devid: DevId) -> Nodes {
        match self {
            Self::Disk(disk) => disk.frontend_nodes(),
            Self::Vif(vif) => vif.frontend_nodes(devid),
        }
    }
}

fn flag(set: bool) -> String {
    String::from(if set { "1" } else { "0" })
}

/// A script's path.
fn script(name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("{SCRIPTS}/{name}")
    }
}
