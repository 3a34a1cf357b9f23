//! The kinds of resources that a device holds, one per file.
//!
//! A new kind is one file, with its `mod` line, and one line in the list below.

mod address;
mod claim;
mod command;
mod firewall;
mod helper;
mod hook;
pub(crate) mod kind;
mod link;
mod loop_device;
mod proxy_arp;
mod route;
mod tagged;

use serde::{Deserialize, Serialize};

pub(crate) use address::Address;
pub(crate) use claim::Claim;
pub(crate) use command::{Command, Undo};
pub(crate) use firewall::Firewall;
pub(crate) use helper::Helper;
pub(crate) use hook::Hooks;
pub use kind::HostAccess;
use kind::ResourceKind;
pub(crate) use link::{Link, present};
pub(crate) use loop_device::Loop;
pub(crate) use proxy_arp::ProxyArp;
pub(crate) use route::Route;

use crate::held_resources::HeldResources;

/// The resources that one device holds.
pub type DeviceResources = HeldResources<Resource>;

/// Makes the type that holds any of these kinds.
macro_rules! kinds {
    ($($kind:ident)*) => {
        /// A resource as the journal keeps it: enough to undo it, whether or not it is known to have been acquired.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct Resource(Any);

        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        enum Any {
            $($kind($kind),)*
        }

        impl AsRef<dyn ResourceKind> for Resource {
            fn as_ref(&self) -> &(dyn ResourceKind + 'static) {
                match &self.0 {
                    $(Any::$kind(kind) => kind,)*
                }
            }
        }

        impl AsMut<dyn ResourceKind> for Resource {
            fn as_mut(&mut self) -> &mut (dyn ResourceKind + 'static) {
                match &mut self.0 {
                    $(Any::$kind(kind) => kind,)*
                }
            }
        }

        $(
            impl From<$kind> for Resource {
                fn from(kind: $kind) -> Self {
                    Self(Any::$kind(kind))
                }
            }
        )*
    };
}

kinds! {
    Address
    Claim
    Command
    Firewall
    Helper
    Hooks
    Link
    Loop
    ProxyArp
    Route
}

impl Resource {
    /// One line for people.
    pub fn describe(&self) -> String {
        self.as_ref().describe()
    }
}
