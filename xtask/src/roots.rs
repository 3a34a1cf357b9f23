//! Root file systems for tests and benchmarks, and the parts for boots of real Xen: Debian packages, unpacked under
//! `target`.
//!
//! `xenplug-enter` makes one of the roots the root of a test's process, so that the test sees no program of the host.
//! Only the kernel, the Rust toolchain and the checkout are the host's.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{debian::Apt, terminal, workspace::Workspace};

/// Release of Debian with its version of Xen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Release {
    /// Number, such as 12.
    pub(crate) number: u32,
    /// Suite in the archive.
    suite: &'static str,
}

/// Debian 12, with Xen 4.17. All tests run in this root.
pub(crate) const PRIMARY: Release = Release {
    number: 12,
    suite: "bookworm",
};

/// Debian 13, with Xen 4.20. The tests that compare with Xen's scripts and store run in this root as well.
pub(crate) const NEWER: Release = Release {
    number: 13,
    suite: "trixie",
};

/// Packages of a root, in addition to Xen's tools. Their dependencies come with them.
const PACKAGES: &[&str] = &[
    "xen-utils-common",
    "xenstore-utils",
    // Debian's essential packages.
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "mawk",
    "mount",
    "ncurses-base",
    "netbase",
    "procps",
    "sed",
    "tar",
    "util-linux",
    // Programs of Xen's scripts.
    "bridge-utils",
    "iproute2",
    "iptables",
    "net-tools",
    "openvswitch-switch",
    // Programs of the tests.
    "binutils",
    "curl",
    "e2fsprogs",
    "libgcc-s1",
    "nftables",
    "strace",
    "xz-utils",
];

/// Beginnings of the names of packages that are left out: the tests start services themselves, and use no tools in Python
/// and Perl. Libraries stay.
const NEEDLESS: &[&str] = &["systemd", "udev", "python", "libpython", "perl", "libperl"];

/// Returns the folder of a release's root.
pub(crate) fn folder(workspace: &Workspace, release: Release) -> PathBuf {
    workspace.target.join(format!("debian-{}", release.number))
}

/// Unpacks both roots.
pub(crate) fn set_up(workspace: &Workspace) -> Result<()> {
    for release in [PRIMARY, NEWER] {
        terminal::step(&format!("Debian {}: the root file system for tests", release.number));
        require(
            fetch(workspace, release),
            &format!("the tests that run in Debian {} cannot run", release.number),
        )?;
    }
    Ok(())
}

/// Warns about tests that cannot run because a download failed. Under `CI=true` the failure is an error.
fn require(fetched: Result<()>, lost: &str) -> Result<()> {
    match fetched {
        Err(error) if std::env::var("CI").as_deref() == Ok("true") => Err(error.context(lost.to_owned())),
        Err(error) => {
            terminal::warning(&format!("{lost}: {error:#}"));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn fetch(workspace: &Workspace, release: Release) -> Result<()> {
    let apt = Apt::of_release(workspace, release.suite)?;
    let xen_utils = apt.newest("xen-utils-4.", "")?;
    let packages: Vec<&str> = [xen_utils.as_str()]
        .into_iter()
        .chain(PACKAGES.iter().copied())
        .collect();
    apt.unpack(&packages, NEEDLESS, &folder(workspace, release), finish)
}

/// Does the work of maintainer scripts: creates users, the links of `alternatives`, and links from old paths to new
/// ones.
fn finish(root: &Path) -> Result<()> {
    let files = [
        ("etc/passwd", "usr/share/base-passwd/passwd.master"),
        ("etc/group", "usr/share/base-passwd/group.master"),
    ];
    for (file, master) in files {
        fs::copy(root.join(master), root.join(file)).context(master)?;
    }
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
    let links = [
        ("usr/bin/sh", "dash"),
        ("usr/bin/awk", "mawk"),
        ("usr/bin/which", "which.debianutils"),
        ("usr/sbin/iptables", "xtables-nft-multi"),
        ("usr/sbin/ip6tables", "xtables-nft-multi"),
        ("usr/sbin/ovs-vswitchd", "../lib/openvswitch-switch/ovs-vswitchd"),
        ("etc/mtab", "../proc/self/mounts"),
        ("var/run", "/run"),
        ("var/lock", "/run/lock"),
    ];
    for (link, target) in links {
        match symlink(target, root.join(link)) {
            // The packages of one release contain the link.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            made => made.with_context(|| link.to_owned())?,
        }
    }
    for folder in ["dev", "proc", "run", "sys", "tmp", "var/log"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

/// Returns the folder of Xen, a kernel, qemu and a small userland, for boots of real Xen.
pub(crate) fn xen_folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("xen-parts")
}

/// Unpacks the packages for boots of real Xen.
pub(crate) fn set_up_xen(workspace: &Workspace) -> Result<()> {
    terminal::step("Xen, a kernel and qemu for the scenarios");
    require(fetch_xen(workspace), "the scenarios on real Xen cannot run")
}

fn fetch_xen(workspace: &Workspace) -> Result<()> {
    let apt = Apt::of_release(workspace, PRIMARY.suite)?;
    let xen_utils = apt.newest("xen-utils-4.", "")?;
    let hypervisor = apt.newest("xen-hypervisor-4.", "-amd64")?;
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
    // The emulator uses the C library of the root in which it runs.
    let needless = [NEEDLESS, &["libc6", "initramfs", "linux-base", "grub"]].concat();
    apt.unpack(&packages, &needless, &xen_folder(workspace), |_| Ok(()))
}
