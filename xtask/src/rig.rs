//! The foreign programs that tests and benchmarks run against: Debian's own xenstored, its tools and hotplug scripts,
//! the `iptables` and `ifconfig` that these use, Open vSwitch, and `nft` to look at rules.

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
    or_say(fetch(workspace), "the tests that need the real xenstored cannot run");
    let newer = Apt::find_other(workspace, NEWER).and_then(|apt| {
        let folder = folder(workspace).with_file_name("rig-newer");
        apt.unpack(&["xen-utils-common"], |_| false, &folder)
    });
    or_say(
        newer,
        "the tests that compare with the newest of Xen's scripts cannot run",
    );
}

/// The release of Debian's with the newest Xen that is served, 4.20: its scripts are wanted beside those of the machine's
/// release. They are unpacked beside the folder of the others.
const NEWER: &str = "trixie";

/// Says what cannot run without what could not be fetched.
fn or_say(fetched: Result<()>, lost: &str) {
    if let Err(error) = fetched {
        terminal::note(&format!("{error:#}: {lost}"));
    }
}

fn fetch(workspace: &Workspace) -> Result<()> {
    let apt = Apt::find(workspace)?;
    let xen_utils = xen_utils(&apt)?;
    let mut packages = vec![
        xen_utils.as_str(),
        "xen-utils-common",
        "xenstore-utils",
        "iptables",
        "net-tools",
    ];
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
    // From here also where it is installed: a switch of its own is run for a test.
    packages.push("openvswitch-switch");
    // They are started by hand, and the tools that are written in Python are not used.
    let needless = |dependency: &str| {
        ["systemd", "udev", "python"]
            .iter()
            .any(|part| dependency.contains(part))
    };
    apt.unpack(&packages, needless, &folder(workspace))
}

/// The package with xenstored, which carries Xen's version in its name: `xen-utils-4.17`.
fn xen_utils(apt: &Apt) -> Result<String> {
    newest(apt, "xen-utils-4.", "")
}

/// Where Xen, a kernel, qemu and a small userland are unpacked, for boots of real Xen. They are told by `XENPLUG_XEN`.
pub(crate) fn xen_folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("xen-rig")
}

/// Fetches what real Xen needs, and says what is missing as [`set_up`] does.
pub(crate) fn set_up_xen(workspace: &Workspace) {
    terminal::step("Fetch Xen, a kernel and qemu for the scenarios");
    or_say(fetch_xen(workspace), "the scenarios on real Xen cannot run");
}

fn fetch_xen(workspace: &Workspace) -> Result<()> {
    // Debian's QEMU for Xen is older than the machine's own may be, and the two exclude each other.
    let apt = Apt::find(workspace)?.on_bare_machine()?;
    let xen_utils = xen_utils(&apt)?;
    let hypervisor = newest(&apt, "xen-hypervisor-4.", "-amd64")?;
    // By its full name, so that it is fetched also where it is installed.
    let kernel = apt.dependency("linux-image-amd64", "linux-image-")?;
    let packages = [
        xen_utils.as_str(),
        hypervisor.as_str(),
        kernel.as_str(),
        "xen-utils-common",
        "xenstore-utils",
        "qemu-system-x86",
        "qemu-system-xen",
        "qemu-utils",
        "busybox-static",
        "bash",
        "coreutils",
        "diffutils",
        "grep",
        "iproute2",
        "mawk",
        "mount",
        "nftables",
        "sed",
        "util-linux",
        "xz-utils",
        "bsdutils",
    ];
    let needless = |dependency: &str| {
        // The loader is the machine's own, and so has to be the C library.
        [
            "libc6",
            "systemd",
            "udev",
            "initramfs",
            "linux-base",
            "grub",
            "perl",
            "python",
        ]
        .iter()
        .any(|part| dependency.contains(part))
    };
    apt.unpack(&packages, needless, &xen_folder(workspace))
}

/// The package with the highest number between these.
fn newest(apt: &Apt, prefix: &str, suffix: &str) -> Result<String> {
    let number = |name: &str| -> Option<Vec<u32>> {
        let middle = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
        middle.split(['.', '-']).map(|part| part.parse().ok()).collect()
    };
    let names = apt.names(prefix)?;
    names
        .into_iter()
        .filter_map(|name| Some((number(&name)?, name)))
        .max()
        .map(|(_, name)| name)
        .with_context(|| format!("this Debian has no package {prefix}*{suffix}"))
}
