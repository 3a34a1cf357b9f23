//! The original scripts and ours side by side: each case is run with both, each on a fresh xenstored and in a fresh
//! namespace, and all that they leave behind is compared.
//!
//! The originals are those of the rig, run by bash, with one change where Debian's are not Xen's: `handle_iptable` in
//! vif-common.sh is switched on again ([`Lab`]). Ours are the daemon in dom0's mode and the stand-in, which the kernel
//! starts as it starts a script. Both are called as libxl calls them.
//!
//! Not compared are the words of `hotplug-error`, which are each one's own, and what only the daemon has: its journal
//! and its log.

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
