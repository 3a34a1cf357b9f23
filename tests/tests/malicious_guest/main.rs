//! Malicious values in a backend's directory never lead the daemon to files, links or devices outside of the grant.

mod disks;
mod nodes;
mod vanishing;
