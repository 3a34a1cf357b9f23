//! Shared parts of the vif handlers: the nodes that each of them reads, and the sources that a guest may send from.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod sources;
mod vif;

pub use vif::VifSettings;

/// Hardware address of a link on a bridge, the largest unicast address. A bridge takes the smallest address of its
/// ports, and so never this one (tools/hotplug/Linux/xen-network-common.sh, `_setup_bridge_port`).
pub const PORT_MAC: &str = "fe:ff:ff:ff:ff:ff";
