//! Root file systems: one for dom0 and the driver domain, and a small one for guests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{BackendIn, archive::Archive, folder, kernel, parts::Parts};
use crate::{
    harness::{self, ISCSIADM, build_directory},
    readme,
};

/// Programs that scripts expect of Debian; busybox has the rest.
const PROGRAMS: &[&str] = &[
    // bash, coreutils, sed, grep, mawk, diffutils
    "bash",
    "basename",
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "dirname",
    "echo",
    "env",
    "expr",
    "head",
    "id",
    "install",
    "ln",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "readlink",
    "rm",
    "rmdir",
    "seq",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "tail",
    "tee",
    "test",
    "timeout",
    "touch",
    "tr",
    "truncate",
    "uname",
    "uniq",
    "wc",
    "sed",
    "grep",
    "egrep",
    "mawk",
    "diff",
    // util-linux, iproute2, nftables
    "losetup",
    "flock",
    "logger",
    "setsid",
    "mount",
    "umount",
    "ip",
    "bridge",
    "nft",
    // Xen's
    "xl",
    "xenstored",
    "xenconsoled",
    "xen-init-dom0",
    "libxl-save-helper",
    "xenstore-control",
    "xenstore",
    "xenstore-chmod",
    "xenstore-exists",
    "xenstore-list",
    "xenstore-ls",
    "xenstore-read",
    "xenstore-rm",
    "xenstore-watch",
    "xenstore-write",
];

const MODULES: &[&str] = &[
    "xen-evtchn",
    "xen-gntdev",
    "xen-privcmd",
    "xenfs",
    "xen-netback",
    "xen-blkback",
    "loop",
    "bridge",
    "crc32c_generic",
    "nf_tables",
    "nf_conntrack",
    "nft_limit",
    "9p",
    "9pnet_virtio",
    "virtio_pci",
    "xen-blkfront",
    "xen-netfront",
];
const GUEST_MODULES: &[&str] = &["xen-blkfront", "xen-netfront"];

/// Path of Debian's QEMU for Xen, below the root.
const QEMU: &str = "usr/libexec/xen-qemu-system-i386";

/// Path of the checkout that users install from, below the root.
const CLONE: &str = "srv/xenplug";

/// Binaries that users install.
const BUILT: &[&str] = &["xenplugd", "xenplug", "xenplug-script"];

/// Writes kernel, hypervisor, roots and scripts into the folder that every boot uses.
pub(super) fn assemble(parts: &Parts, into: &Path, qemu: bool) -> Result<()> {
    fs::create_dir_all(into).with_context(|| into.display().to_string())?;
    kernel::unpack(parts, &into.join("vmlinux"))?;
    let packed = parts.only("boot", "xen-4")?.with_extension("gz");
    fs::write(
        into.join("xen"),
        kernel::filter(Command::new("gzip").arg("-dc"), &packed)?,
    )?;
    let mut root = root(parts, into)?;
    if qemu {
        add_qemu(&mut root, parts)?;
    }
    root.write(&into.join("root.cpio"))?;
    guest(parts)?.write(&into.join("guest.cpio"))?;
    let scenarios = into.join("scenarios");
    copy(&folder(), &scenarios)?;
    let readme = fs::read_to_string(clone().join("README.md")).context("README.md")?;
    for place in BackendIn::ALL {
        let file = scenarios.join(format!("install-{}.sh", place.name()));
        fs::write(file, installation(&readme, place)?)?;
    }
    Ok(())
}

/// Returns the README's commands that install Xenplug: the binaries, then the files that the domain needs besides.
fn installation(readme: &str, place: BackendIn) -> Result<String> {
    let sections = match place {
        BackendIn::DriverDomain => ["Binaries and plugins", "In a driver domain"],
        BackendIn::Dom0 => ["Binaries and plugins", "In dom0"],
    };
    let mut script = format!("cd /{CLONE} || exit\n");
    for section in sections {
        let of_section = readme::commands(readme)?.into_iter();
        let of_section =
            of_section.filter(|command| command.section == section && command.line.starts_with("install "));
        let lines: Vec<_> = of_section.map(|command| command.line).collect();
        ensure!(!lines.is_empty(), "README.md installs nothing in \"{section}\"");
        script += &(lines.join(" &&\n") + " || exit\n");
    }
    Ok(script + "xenplugd --check\n")
}

/// Returns the checkout's path.
fn clone() -> PathBuf {
    folder().join("../..")
}

/// Copies a folder of scripts, and replaces files of an earlier run.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

fn root(parts: &Parts, into: &Path) -> Result<Archive> {
    let mut root = base();
    for name in PROGRAMS {
        add_program(&mut root, parts, &format!("usr/bin/{name}"), &parts.program(name)?)?;
    }
    root.link("usr/bin/awk", "mawk");
    root.link("usr/bin/sh", "bash");
    add_busybox(&mut root, parts)?;
    root.file("etc/xen/xl.conf", &parts.file("etc/xen/xl.conf"));
    // Xen's programs find each other in this folder.
    let xen = parts.only("usr/lib", "xen-4")?;
    let xen = xen.file_name().unwrap_or_default().to_string_lossy();
    root.link(&format!("usr/lib/{xen}/bin"), "../../bin");
    root.link("var/run", "/run");
    for script in fs::read_dir(parts.file("etc/xen/scripts"))? {
        let script = script?;
        root.file(
            format!("etc/xen/scripts/{}", script.file_name().to_string_lossy()),
            &script.path(),
        );
    }
    add_modules(&mut root, parts, MODULES)?;
    root.file("init", &folder().join("init"));
    add_iscsi(&mut root, into)?;
    add_product(&mut root, parts, into)?;
    Ok(root)
}

fn guest(parts: &Parts) -> Result<Archive> {
    let mut root = base();
    add_busybox(&mut root, parts)?;
    add_modules(&mut root, parts, GUEST_MODULES)?;
    root.file("init", &folder().join("guest-init"));
    Ok(root)
}

/// Returns a root with Debian's layout: `/bin` and the like are links into `/usr`.
fn base() -> Archive {
    let mut root = Archive::default();
    for folder in [
        "dev",
        "proc",
        "sys",
        "run",
        "tmp",
        "root",
        "usr/bin",
        "usr/lib/x86_64-linux-gnu",
        "usr/lib64",
    ] {
        root.folder(folder);
    }
    for (link, target) in [
        ("bin", "usr/bin"),
        ("sbin", "usr/bin"),
        ("usr/sbin", "bin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ] {
        root.link(link, target);
    }
    root
}

fn add_program(root: &mut Archive, parts: &Parts, path: &str, from: &Path) -> Result<()> {
    root.file(path, from);
    for library in parts.libraries(from)? {
        let name = library.file_name().unwrap_or_default().to_string_lossy();
        let folder = if name.starts_with("ld-linux") {
            "usr/lib64"
        } else {
            "usr/lib/x86_64-linux-gnu"
        };
        root.file(format!("{folder}/{name}"), &library);
    }
    Ok(())
}

/// Adds QEMU, which serves disks of the kind `qdisk`, and `qemu-img`, which creates images.
fn add_qemu(root: &mut Archive, parts: &Parts) -> Result<()> {
    add_program(root, parts, QEMU, &parts.file(QEMU))?;
    add_program(root, parts, "usr/bin/qemu-img", &parts.program("qemu-img")?)?;
    // QEMU loads a keymap even without a display.
    let keymaps = "usr/share/qemu/keymaps";
    for keymap in fs::read_dir(parts.file(keymaps)).context("the keymaps of qemu-system-data")? {
        let keymap = keymap?;
        root.file(
            format!("{keymaps}/{}", keymap.file_name().to_string_lossy()),
            &keymap.path(),
        );
    }
    Ok(())
}

/// Adds busybox, under all names that are free.
fn add_busybox(root: &mut Archive, parts: &Parts) -> Result<()> {
    let busybox = parts.program("busybox")?;
    root.file("usr/bin/busybox", &busybox);
    let names = Command::new(&busybox).arg("--list").output()?;
    for name in String::from_utf8_lossy(&names.stdout).lines() {
        let path = format!("usr/bin/{name}");
        if !root.contains(&path) {
            root.link(&path, "busybox");
        }
    }
    Ok(())
}

fn add_modules(root: &mut Archive, parts: &Parts, names: &[&str]) -> Result<()> {
    for (below, from) in parts.modules(names)? {
        root.file(Path::new("usr/lib/modules").join(below), &from);
    }
    Ok(())
}

/// Adds the fake `iscsiadm`, for both sides, because there is no target to log in to.
fn add_iscsi(root: &mut Archive, into: &Path) -> Result<()> {
    let program = into.join("iscsiadm");
    harness::install(&program, &format!("#!/bin/sh\nhere=/run/iscsi\n{ISCSIADM}"))?;
    root.file("usr/bin/iscsiadm", &program);
    Ok(())
}

/// Adds the built project, at the paths that `cargo xtask build` gives it in a clone: scenarios install it as the
/// README says.
fn add_product(root: &mut Archive, parts: &Parts, into: &Path) -> Result<()> {
    let release = build_directory()?;
    for name in BUILT {
        // The root is in memory, so the programs go without debugging information.
        let program = into.join(name);
        let stripped = Command::new("strip")
            .arg("--strip-debug")
            .arg("-o")
            .arg(&program)
            .arg(release.join(name))
            .status();
        ensure!(stripped.context("strip")?.success(), "{name} cannot be stripped");
        add_program(root, parts, &format!("{CLONE}/target/release/{name}"), &program)?;
    }
    let plugins = std::env::var_os("XENPLUG_PLUGINS").context("XENPLUG_PLUGINS is not set: use `cargo xtask xen`")?;
    for plugin in ["phy.wasm", "vif-bridge.wasm", "block-iscsi.wasm", "qdisk.wasm"] {
        root.file(
            format!("{CLONE}/target/plugins/{plugin}"),
            &Path::new(&plugins).join(plugin),
        );
    }
    for example in ["driver-domain.toml", "dom0.toml", "systemd/xenplugd.service"] {
        root.file(
            format!("{CLONE}/examples/{example}"),
            &clone().join("examples").join(example),
        );
    }
    Ok(())
}
