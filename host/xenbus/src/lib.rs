//! Paths, states and identity of Xen devices, and the hotplug state machine as a pure function.
//!
//! Nothing in this crate does I/O, reads a clock or spawns anything. Every parser is total, and its result can be
//! trusted afterwards.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod device;
pub mod fsm;
pub mod id;
pub mod path;
pub mod script;
pub mod state;

#[cfg(test)]
mod tests;

pub use device::{DeviceInstance, DeviceKey, Identity, VifType};
pub use fsm::{
    AfterRelease, DeviceFsm, Event, FsmAction, Mode, Observation, Phase, REQUEST_NODE, RecoveredState, Ticket,
    WriteOutcome,
};
pub use id::{DevId, DomId, Kind};
pub use path::{BackendPath, WatchLevel, WatchedPath};
pub use script::ScriptName;
pub use state::{HotplugStatus, XenbusState};
