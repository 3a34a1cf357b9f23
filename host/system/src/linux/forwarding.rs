//! Forwarding settings of links in `/proc/sys/net`, which shows the network namespace of the reading process
//! (fs/proc/proc_sysctl.c).

use std::{fs, io, path::PathBuf};

use crate::{
    Error,
    network::{IfName, refusal},
};

/// Sets `proxy_arp` (net/ipv4/arp.c, `arp_process`).
pub(super) fn set_proxy_arp(name: &IfName, on: bool) -> Result<(), Error> {
    // An `IfName` has no slash, and is neither "." nor "..".
    let path: PathBuf = ["/proc/sys/net/ipv4/conf", name.as_str(), "proxy_arp"].iter().collect();
    fs::write(&path, if on { "1" } else { "0" }).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => refusal::gone(name),
        _ => Error::io(format!("set proxy_arp of {name}"), &error),
    })
}
