//! The foreign programs that tests and benchmarks run against: Debian's own xenstored, its tools and hotplug scripts,
//! and `nft` to look at rules.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{
    debian::{Apt, on_path},
    terminal,
    workspace::Workspace,
};

/// Where they are unpacked: `usr/lib/xen-*/bin/xenstored`, `usr/sbin`, `usr/bin`, `etc/xen/scripts`. Programs find
/// their libraries in `usr/lib/<triple>` by `LD_LIBRARY_PATH`. Tests are told by `XENPLUG_RIG`.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("rig")
}

/// Fetches them. Where that fails it says so and goes on: the tests that need them fail by themselves under `CI=true`,
/// and say loudly elsewhere that they did not run.
pub(crate) fn set_up(workspace: &Workspace) {
    terminal::step("Fetch the foreign programs for the tests");
    if let Err(error) = fetch(workspace) {
        terminal::note(&format!("{error:#}: the tests that need the real xenstored cannot run"));
    }
}

fn fetch(workspace: &Workspace) -> Result<()> {
    let apt = Apt::find(workspace)?;
    let xen_utils = xen_utils(&apt)?;
    let mut packages = vec![xen_utils.as_str(), "xen-utils-common", "xenstore-utils"];
    for (program, package) in [
        ("nft", "nftables"),
        ("ip", "iproute2"),
        ("bash", "bash"),
        ("curl", "curl"),
        ("strace", "strace"),
    ] {
        if !on_path(program) {
            packages.push(package);
        }
    }
    // They are started by hand.
    let init_system = |dependency: &str| dependency.contains("systemd") || dependency.contains("udev");
    apt.unpack(&packages, init_system, &folder(workspace))
}

/// The package with xenstored, which carries Xen's version in its name: `xen-utils-4.17`.
fn xen_utils(apt: &Apt) -> Result<String> {
    let mut names = apt.names("xen-utils-4.")?;
    names.retain(|name| name["xen-utils-4.".len()..].bytes().all(|byte| byte.is_ascii_digit()));
    names.pop().context("this Debian has no package xen-utils-4.*")
}
