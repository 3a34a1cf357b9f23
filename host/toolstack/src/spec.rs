//! Devices in xl's syntax, and the nodes that libxl would write for them.

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

/// Directory of scripts that are named without one (tools/libs/light/libxl_internal.c, `libxl__abs_path`).
const SCRIPTS: &str = "/etc/xen/scripts";

/// Nodes with their values, in the order in which libxl writes them.
pub type Nodes = Vec<(&'static str, String)>;

/// Device in xl's configuration syntax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// Disk specification.
    Disk(Disk),
    /// Network interface specification.
    Vif(Vif),
}

impl Spec {
    /// Parses a device of this class.
    pub fn parse(class: Class, text: &str) -> Result<Self, SpecError> {
        match class {
            Class::Vbd => Disk::parse(text).map(Self::Disk),
            Class::Vif => Vif::parse(text).map(Self::Vif),
        }
    }

    /// Returns the device's class.
    pub fn class(&self) -> Class {
        match self {
            Self::Disk(_) => Class::Vbd,
            Self::Vif(_) => Class::Vif,
        }
    }

    /// Returns the kind of backend that serves the device.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Disk(disk) => disk.kind.clone(),
            Self::Vif(_) => Kind::VIF,
        }
    }

    /// Returns the backend domain, if the specification names one.
    pub fn backend(&self) -> Option<&str> {
        match self {
            Self::Disk(disk) => disk.backend.as_deref(),
            Self::Vif(vif) => vif.backend.as_deref(),
        }
    }

    /// Returns the device number, or `None` for a vif without one.
    pub fn devid(&self) -> Option<DevId> {
        match self {
            Self::Disk(disk) => Some(disk.devid),
            Self::Vif(vif) => vif.devid,
        }
    }

    /// Returns the nodes of the backend, without those that the driver domain writes.
    pub fn backend_nodes(&self, devid: DevId) -> Nodes {
        match self {
            Self::Disk(disk) => disk.backend_nodes(),
            Self::Vif(vif) => vif.backend_nodes(devid),
        }
    }

    /// Returns the nodes of the frontend, without those that the driver domain writes.
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

/// Returns a script's path.
fn script(name: &str) -> String {
    if name.starts_with('/') {
        name.to_owned()
    } else {
        format!("{SCRIPTS}/{name}")
    }
}
