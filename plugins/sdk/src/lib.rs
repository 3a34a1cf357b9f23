//! SDK for `xen:hotplug` handlers in Rust.
//!
//! A handler connects one kind of Xen backend device. It describes itself ([`Description`]). For each device it
//! acquires resources with the host's functions, and returns the nodes to publish ([`Connection`]). The daemon releases
//! the resources when the device goes or the handler fails, so that a handler has nothing to clean up.
//!
//! This handler serves logical volumes, read-only:
//!
//! ```
//! use xenplug_sdk::{
//!     Connection, Description, Device, Error, Handler,
//!     block::{Access, Sharing, Source},
//! };
//!
//! struct Volumes;
//!
//! impl Handler for Volumes {
//!     fn describe() -> Description {
//!         Description::new("logical volumes, read-only").kind("vbd").script("block-lv")
//!     }
//!
//!     fn connect(device: &Device) -> Result<Connection, Error> {
//!         let name = device.required("params")?;
//!         let source = Source::open(&format!("/dev/vg0/{name}"), Access::ReadOnly)?;
//!         source.claim(Sharing::Readers)?;
//!         let number = source
//!             .facts()
//!             .device
//!             .ok_or_else(|| Error::invalid("params", format!("`{name}` is not a block device")))?;
//!         Ok(Connection::new().backend("physical-device", number.to_string()))
//!     }
//! }
//!
//! xenplug_sdk::export!(Volumes);
//! ```
//!
//! Its crate is a library of `crate-type = ["cdylib"]`, built for `wasm32-unknown-unknown`: there is no WASI, and thus
//! no file, clock or environment. It reaches the host only through the modules of this crate, one for each
//! interface of the WIT package. The imports of the component are its manifest: the operator has to grant every module
//! that it uses, except [`log`] and [`config`], which are always granted.
//!
//! | module | granted by |
//! | --- | --- |
//! | [`block`] | `block = [{ path, access }]`, and `loop = true` for loop devices |
//! | [`network`] | `bridges = ["xenbr*"]`, `routes = ["10.0.0.0/8"]`, `uplinks = ["eth0"]` |
//! | [`firewall`] | `firewall = true` |
//! | [`process`] | `process = [{ name, path, args }]` |
//! | [`guest`] | `guest = true` |
//!
//! The crate compiles for other targets too, so that a handler's logic can be unit-tested; the functions of the
//! modules above panic there, since there is no host to call.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

#[doc(hidden)]
pub mod bindings;
mod command;
pub mod config;
mod connection;
mod device;
pub mod disk;
mod error;
mod export;
mod handler;
mod image;
mod link;
pub mod log;

pub use bindings::xen::hotplug::{
    block, firewall, guest, network, process,
    types::{BadParam, Connection, Description, Device, Error, Node, VifType},
};
pub use command::{Command, Undo};
pub use error::OrInvalid;
pub use handler::Handler;

#[doc(hidden)]
pub use export::Exported;
