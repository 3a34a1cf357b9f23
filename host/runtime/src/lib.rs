//! Runs handlers as WebAssembly components, with granted capabilities alone.
//!
//! A [`Plugin`] is a component, compiled and linked against the operator's grants and nothing else. Each event of a
//! device runs on a fresh instance of it, under [`Limits`], with the device's [`DeviceResources`]: the record of what
//! the device holds, which outlives the instance and is released whether or not the handler helps.
//!
//! The path of every effect is the same: a host call (`capability/<interface>.rs`) turns the guest's values into a
//! request, the resource's kind (`resource/<kind>.rs`) writes the intent to the journal, `xenplug_system` makes the
//! effect under the plugin's grant, and the journal learns the outcome.

mod bindings;
mod cache;
mod call_error;
mod capability;
mod device;
mod engine;
mod event;
mod fault;
mod grants;
mod handles;
mod header;
mod held_resources;
mod hooks;
mod limits;
mod manifest;
mod plugin;
mod resource;
mod shared;
mod text;

pub use cache::{Cache, CacheError, Compiler};
pub use device::{Connection, Device, DeviceError};
pub use engine::{Engine, EngineError};
pub use event::Cancel;
pub use fault::Fault;
pub use grants::{Grants, Interface};
pub use header::Header;
pub use held_resources::ResourceError;
pub use limits::Limits;
pub use manifest::ManifestError;
pub use plugin::{Connected, LoadError, Plugin, PluginSpec};
pub use resource::{DeviceResources, HostAccess, Resource};
pub use shared::{Claim, HelperKey, SharedHelpers, SharedResources, Sharing, StoreQueries};
pub use text::clean;
