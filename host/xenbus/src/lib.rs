//! Paths, states and identity of Xen devices, and the hotplug state machine as a pure function.
