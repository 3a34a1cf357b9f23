//! Runs handlers as WebAssembly components, with granted capabilities alone.
//!
//! A [`Plugin`] is a component, compiled and linked against what the operator granted and nothing else. Each event of a
//! device runs on a fresh instance of it, under limits ([`Limits`]), with the device's [`DeviceResources`]: the record of what it
//! acquired, which outlives the instance and is given back by [`DeviceResources::release`] whether or not the handler helps.
//!
//! The path of every effect is the same: a host call (`capability/<interface>.rs`) turns the guest's words into a
//! request, [`DeviceResources::acquire`] writes the intent to the journal, `xenplug_system` does it under the plugin's grant,
//! and the journal learns the outcome.

mod bindings;
mod cache;
mod capability;
mod device;
mod effect;
mod engine;
mod event;
mod grants;
mod hooks;
mod limits;
mod manifest;
mod plugin;
mod resources;
mod shared;
mod text;

pub use cache::{Cache, CacheError, Compiler};
pub use device::{Connection, Device, DeviceError};
pub use effect::Effect;
pub use engine::{Engine, EngineError};
pub use grants::{Grants, Interface};
pub use limits::Limits;
pub use plugin::{Cancel, Fault, LoadError, Plugin, PluginSpec};
pub use resources::{DeviceResources, Header, ResourceError};
pub use shared::{Claim, HelperKey, SharedHelpers, SharedResources, Sharing, StoreQueries};
pub use text::clean;
