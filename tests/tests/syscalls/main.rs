//! The daemon is killed at every system call of attach and detach, and every call fails in turn: what was to come comes,
//! what was to go goes, and nothing is left.

mod crash;
mod faults;
mod workload;
