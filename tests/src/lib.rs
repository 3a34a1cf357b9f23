//! Harness, tests and demo that run Xenplug on real parts.
//!
//! [`harness`] has the real parts and the players for missing ones, [`store`] their client of xenstored, [`floor`] the
//! least that an attach can cost, [`demo`] the demo, [`differential`] the comparison with the original scripts, [`xen`]
//! scenarios on real Xen, [`syscall_injector`] faults at single system calls, [`readme`] the README's commands,
//! [`cases`] the counter of a test's cases, [`loud`] output past the test runner. The harness shares no code with the
//! daemon, so that a mistake in one does not hide a mistake in the other.

pub mod cases;
pub mod demo;
pub mod differential;
pub mod floor;
pub mod harness;
pub mod loud;
pub mod readme;
pub mod store;
pub mod syscall_injector;
pub mod xen;
