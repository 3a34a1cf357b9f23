//! The harness, tests and demo that run Xenplug on real parts.
//!
//! [`harness`] has the real parts and the players for what is missing, [`store`] their client of xenstored, [`floor`] the
//! least that an attach can cost, [`demo`] the tour, [`differential`] the original scripts beside ours, [`xen`] scenarios
//! on real Xen, [`syscall_injector`] faults at single system calls, [`readme`] the README's commands, [`cases`] the counter
//! of a test's cases, [`loud`] output past the test runner. The code that checks the daemon shares none with it: a mistake
//! of the one must not hide in the other.

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
