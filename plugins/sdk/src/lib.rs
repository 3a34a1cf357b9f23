//! Write a xen:hotplug handler in Rust.
