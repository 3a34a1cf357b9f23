//! The harness, tests and demo that run Xenplug on real parts.
//!
//! [`harness`] has the parts and the players, [`store`] their way to speak to xenstored, [`floor`] the least that a plug can
//! cost, [`demo`] the tour, [`differential`] the original scripts beside ours, [`xen`] the same
//! on real Xen, [`syscall_injector`] the daemon's system calls one by one, [`readme`] the commands that users are told, [`trial`] a test of many cases, [`loud`] a voice. What checks the daemon shares no code with
//! it: a mistake of the one must not hide in the other.

pub mod demo;
pub mod differential;
pub mod floor;
pub mod harness;
pub mod loud;
pub mod readme;
pub mod store;
pub mod syscall_injector;
pub mod trial;
pub mod xen;
