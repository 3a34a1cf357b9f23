//! Settings of every vif: its link's name, its MTU, and the sources that its guest may send from.

use xenplug_sdk::{
    Connection, Device, Error, OrInvalid, VifType, config,
    firewall::{self, Sources},
    network::{Bridge, LinkChanges, Vif},
};

use crate::sources;

/// Settings in a vif's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VifSettings {
    /// New name of the link.
    pub name: Option<String>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// Sources that the guest may send from, if they are restricted.
    pub allowed: Option<Sources>,
    vif_type: VifType,
}

impl VifSettings {
    /// Reads `vifname`, `mtu`, `ip` and `mac`, and the operator's `mac-filter`.
    pub fn of(device: &Device) -> Result<Self, Error> {
        Self::read(device, config::flag("mac-filter")?)
    }

    fn read(device: &Device, mac_filter: bool) -> Result<Self, Error> {
        let mtu = match device.optional("mtu")? {
            Some(mtu) => mtu.parse().or_invalid("mtu")?,
            None => 0,
        };
        let name = device.optional("vifname")?;
        Ok(Self {
            name: name.map(|name| match device.vif_type {
                VifType::Paravirtual => name.to_owned(),
                // tools/hotplug/Linux/vif-common.sh
                VifType::Emulated => format!("{name}-emu"),
            }),
            // 0 means none (tools/hotplug/Linux/xen-network-common.sh, `set_mtu`).
            mtu: (mtu > 0).then_some(mtu),
            allowed: sources::allowed(device, mac_filter)?,
            vif_type: device.vif_type,
        })
    }

    /// Makes changes to the link, and sets its name and MTU. With a bridge, makes the link a port of it.
    pub fn configure(&self, vif: &Vif, changes: LinkChanges, bridge: Option<&Bridge>) -> Result<(), Error> {
        let changes = LinkChanges {
            name: self.name.clone(),
            mtu: self.mtu,
            ..changes
        };
        vif.configure(&changes, bridge).map_err(|error| match error {
            // Only the name can be in use, not another of the changes.
            Error::Busy(cause) if self.name.is_some() => Error::invalid("vifname", cause),
            error => error,
        })
    }

    /// Restricts the link to the allowed sources.
    ///
    /// The guest cannot send before that, because netback forwards nothing before the device is reported as connected.
    pub fn restrict(&self, vif: &Vif) -> Result<(), Error> {
        match &self.allowed {
            Some(allowed) => firewall::restrict(vif, allowed),
            None => Ok(()),
        }
    }

    /// Returns the nodes to publish: for the frontend, the MTU that was set.
    pub fn connection(&self) -> Connection {
        match (self.mtu, self.vif_type) {
            (Some(mtu), VifType::Paravirtual) => Connection::new().frontend("mtu", mtu.to_string()),
            // The tap of an emulated vif has no frontend.
            _ => Connection::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(nodes: &[(&str, &str)]) -> Result<VifSettings, Error> {
        VifSettings::read(&Device::sample("vif", nodes), false)
    }

    #[test]
    fn absent_nodes_are_none() {
        assert_eq!(
            settings(&[]),
            Ok(VifSettings {
                name: None,
                mtu: None,
                allowed: None,
                vif_type: VifType::Paravirtual,
            })
        );
    }

    #[test]
    fn all_nodes_are_read() {
        let settings = settings(&[("vifname", "web"), ("mtu", "9000"), ("ip", "10.0.0.2")]).unwrap();
        assert_eq!((settings.name.as_deref(), settings.mtu), (Some("web"), Some(9000)));
        assert_eq!(settings.allowed.clone().unwrap().ipv4, ["10.0.0.2"]);
        assert_eq!(settings.connection(), Connection::new().frontend("mtu", "9000"));
    }

    #[test]
    fn tap_is_named_after_its_vif_and_has_no_frontend() {
        let nodes = [("vifname", "web"), ("mtu", "9000")];
        let tap = VifSettings::read(
            &Device::sample("vif", &nodes).called_with(VifType::Emulated, &[]),
            false,
        )
        .unwrap();
        assert_eq!(tap.name.as_deref(), Some("web-emu"));
        assert_eq!(tap.connection(), Connection::new());
    }

    #[test]
    fn empty_node_is_refused() {
        for key in ["vifname", "mtu", "ip"] {
            assert_eq!(settings(&[(key, "")]), Err(Error::invalid(key, "is empty")));
        }
    }

    #[test]
    fn mtu_of_zero_is_none() {
        assert_eq!(settings(&[("mtu", "0")]).map(|settings| settings.mtu), Ok(None));
    }

    #[test]
    fn mtu_is_a_number() {
        for mtu in ["large", "-1", "1500 ", "99999999999"] {
            assert!(
                matches!(settings(&[("mtu", mtu)]), Err(Error::InvalidParams(bad)) if bad.key == "mtu"),
                "{mtu}"
            );
        }
    }
}
