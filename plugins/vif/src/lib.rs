//! What the handlers of network cards share: the nodes that each of them reads, and what a guest may send.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod card;
pub mod sources;

pub use card::Card;

/// The largest hardware address that is no group's: a bridge takes the smallest of its ports', and so never this one
/// (tools/hotplug/Linux/xen-network-common.sh, `_setup_bridge_port`).
pub const PORT_MAC: &str = "fe:ff:ff:ff:ff:ff";
