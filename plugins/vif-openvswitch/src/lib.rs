//! Handler for vifs on an Open vSwitch: does what `/etc/xen/scripts/vif-openvswitch` does on `online`, and on `add` for
//! the tap of an emulated vif.
//!
//! | node or parameter read | meaning |
//! | --- | --- |
//! | `bridge`, or else the parameter of that name | `NAME[.TAG][:TRUNK[:TRUNK]...]`: the bridge, the VLAN of untagged frames, and the VLANs that are let through |
//! | `mac` | the guest's hardware address, also an external id of the port |
//! | `vifname`, `mtu`, `ip` | as for `vif-bridge`; without `mtu` it stays as it is |
//!
//! The setting `mac-filter` and the frontend's `mtu` are those of `vif-bridge`, too.
//!
//! The helper `ovs-vsctl` configures the switch in two calls. One adds the port, with the guest's name, UUID and
//! hardware address as external ids. The daemon makes the other one, which removes the port, when the vif goes. The
//! calls always have the same form, so that the operator can grant them argument by argument:
//!
//! ```toml
//! process = [
//!     { name = "ovs-vsctl", path = "/usr/bin/ovs-vsctl", args = [
//!         "--timeout=30", "--", "--if-exists", "del-port", "*", "--", "add-port", "xenbr*", "*", "tag=*", "trunks=*",
//!         "--", "set", "interface", "*", "external-ids:*", "...",
//!     ] },
//!     { name = "ovs-vsctl", path = "/usr/bin/ovs-vsctl", args = ["--timeout=30", "--", "--if-exists", "del-port", "*"] },
//! ]
//! ```

mod port;

use port::{Port, external_id};
use xenplug_sdk::{
    Command, Connection, Description, Device, Error, Handler, Undo, guest,
    network::{LinkChanges, Vif},
};
use xenplug_vif::{PORT_MAC, VifSettings};

/// Handler for vifs on an Open vSwitch.
struct VifOpenvswitch;

impl Handler for VifOpenvswitch {
    fn describe() -> Description {
        Description::new("vifs on an Open vSwitch")
            .kind("vif")
            .script("vif-openvswitch")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let settings = VifSettings::of(device)?;
        let bridge = device.setting("bridge")?;
        let port: Port = bridge.ok_or_else(|| Error::invalid("bridge", "is missing"))?.parse()?;
        let mac = device.required("mac")?;
        let vif = Vif::find()?;
        settings.configure(&vif, LinkChanges::new().flush_addresses().mac(PORT_MAC), None)?;

        let link = vif.facts()?.name;
        // Values that cannot be read, as in a driver domain, are left out.
        let facts = [
            ("xen-vm-name", guest::name()),
            ("xen-vm-uuid", guest::uuid()),
            ("attached-mac", Some(mac.to_owned())),
        ];
        let ids = facts
            .iter()
            .filter_map(|(key, value)| Some(external_id(key, value.as_deref()?)));
        let add = remove(&link)
            .args(["--", "add-port", &port.bridge, &link])
            .args([port.tag(), port.trunks()])
            .args(["--", "set", "interface", &link])
            .args(ids);
        add.expect(add.apply(Undo::by(remove(&link)).after_failure()))?;
        vif.configure(&LinkChanges::new().up(), None)?;
        settings.restrict(&vif)?;
        Ok(settings.connection())
    }
}

/// Returns the call that removes the port of a link, if there is one.
fn remove(link: &str) -> Command {
    Command::of("ovs-vsctl").args(["--timeout=30", "--", "--if-exists", "del-port", link])
}

xenplug_sdk::export!(VifOpenvswitch);
