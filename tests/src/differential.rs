//! Differential tests: each case runs with the original scripts and with Xenplug, each on a fresh xenstored and in a
//! fresh namespace, and everything that they leave behind is compared.
//!
//! The originals are those of the Debian root, run by bash. One change is made where Debian's differ from Xen's:
//! `handle_iptable` in vif-common.sh is enabled again ([`Lab`]). On our side the daemon runs in dom0 mode, and the
//! kernel starts the shims as it starts a script. Both are called as libxl calls them.
//!
//! Not compared are the texts of `hotplug-error`, which differ, and the daemon's journal and log, which have no
//! counterpart.

mod case;
mod compare;
mod fixture;
mod lab;
mod observed;
pub mod table;
mod trace;

pub use case::{ABSENT, Case, Difference, Step};
pub use compare::{Report, compare, compare_all};
pub use fixture::{Fixture, Who};
pub use lab::Lab;
pub use trace::Trace;
