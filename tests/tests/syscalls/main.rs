//! Fault suite: the daemon is killed at every system call of attach and detach, and every call fails in turn. Devices
//! still connect and disconnect, and nothing is left.

mod crash;
mod faults;
mod workload;
