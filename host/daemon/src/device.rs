//! Devices: one task per device runs the pure state machine of `xenplug_xenbus` and carries out its actions.
//!
//! [`Registry`] starts the tasks, [`driver`] runs them, `observe` and `publish` read and write backend directories, and
//! [`recovery`] adopts what an earlier daemon left.

mod context;
mod deadlines;
pub(crate) mod device_model;
mod driver;
mod entry;
mod failure;
mod job;
mod observe;
mod prune;
mod publish;
pub(crate) mod recovery;
mod registry;
mod removal_delay;
mod script_calls;
mod selection;

pub(crate) use context::DeviceContext;
pub(crate) use observe::{Directory, RETRY, normalize_vm_path};
pub(crate) use prune::{remove, remove_above};
pub(crate) use registry::Registry;
pub(crate) use script_calls::{SCRIPT_LIMIT, ScriptCall};
