//! The handler for network cards on a bridge.
