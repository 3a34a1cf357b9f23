//! Runs a program in a root file system of unpacked Debian packages, in a mount namespace of its own.
//!
//! The root is an overlay whose upper layer is in memory: the program may write anywhere, and nothing of it remains.
//! From the host come `/proc`, `/sys`, `/dev` and the directories that `--bind` names, at the same paths as outside.
//! `/tmp` is a directory on the host's disk, because disk images have to be on a real file system. `cargo xtask` passes
//! this program to cargo as the runner of tests.
#![allow(clippy::print_stderr, reason = "the message is for the user who runs the tests")]

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Error, Result};
use clap::Parser;
use rustix::{
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
    },
    process::{geteuid, pivot_root},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Search path of root on Debian.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that would load the host's libraries, or apply the settings of its shell.
const REMOVED: [&str; 6] = ["LD_LIBRARY_PATH", "LD_PRELOAD", "BASH_ENV", "ENV", "CDPATH", "TMPDIR"];

/// Runs a program in a root file system of unpacked Debian packages.
#[derive(Parser)]
#[command(name = "xenplug-enter")]
struct Arguments {
    /// Root file system; it is not changed.
    #[arg(long)]
    root: PathBuf,
    /// Empty directory on which the copy of the root is mounted, in the namespace.
    #[arg(long)]
    mount_point: PathBuf,
    /// Directory that becomes `/tmp`.
    #[arg(long)]
    tmp: PathBuf,
    /// Directory of the host that is visible at the same path.
    #[arg(long)]
    bind: Vec<PathBuf>,
    /// Program with its arguments.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let program = Path::new(&arguments.command[0]).to_owned();
    let mut command = Command::new(&program);
    command.args(&arguments.command[1..]);
    let visible = arguments.bind.iter().any(|folder| program.starts_with(folder));
    if !geteuid().is_root() {
        eprintln!("not root: {} runs in the host's own root", program.display());
    } else if visible {
        // rustdoc builds a documentation test elsewhere; it runs in the host's root.
        let folder = env::current_dir()?;
        enter(&arguments).context("entering the Debian root failed")?;
        env::set_current_dir(&folder).with_context(|| folder.display().to_string())?;
        REMOVED.iter().for_each(|name| {
            command.env_remove(name);
        });
        command.env("PATH", path()).env("XENPLUG_DEBIAN", &arguments.root);
    }
    Err(Error::new(command.exec()).context(program.display().to_string()))
}

/// Returns the search path: Debian's, and at its end the toolchain whose cargo runs the tests.
fn path() -> OsString {
    let mut path = OsString::from(PATH);
    if let Some(toolchain) = env::var_os("CARGO")
        .as_deref()
        .and_then(|cargo| Path::new(cargo).parent())
    {
        path.push(":");
        path.push(toolchain);
    }
    path
}

/// Changes the root of this process to a copy of the root file system.
fn enter(arguments: &Arguments) -> Result<()> {
    // SAFETY: this program has one thread and shares no memory; the flag concerns mounts alone.
    #[allow(unsafe_code, reason = "unshare has no safe form")]
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("a mount namespace")?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    let top = &arguments.mount_point;
    mount("tmpfs", top, "tmpfs", MountFlags::empty(), c"mode=755").with_context(|| top.display().to_string())?;
    let [upper, work, root] = ["upper", "work", "root"].map(|name| top.join(name));
    for folder in [&upper, &work, &root] {
        fs::create_dir(folder)?;
    }
    let layers = format!(
        "lowerdir={},upperdir={},workdir={}",
        escaped(&arguments.root),
        escaped(&upper),
        escaped(&work)
    );
    let layers = std::ffi::CString::new(layers)?;
    mount("overlay", &root, "overlay", MountFlags::empty(), layers.as_c_str()).context("an overlay (overlayfs)")?;
    for folder in ["proc", "sys", "dev"] {
        mount_bind_recursive(Path::new("/").join(folder), root.join(folder)).context(folder)?;
    }
    mount("tmpfs", root.join("run"), "tmpfs", MountFlags::empty(), c"mode=755").context("/run")?;
    fs::create_dir(root.join("run/lock"))?;
    mount_bind(&arguments.tmp, root.join("tmp")).context("/tmp")?;
    for folder in arguments.bind.iter().filter(|folder| folder.is_dir()) {
        let inside = root.join(folder.strip_prefix("/").context("--bind takes absolute paths")?);
        fs::create_dir_all(&inside)?;
        mount_bind_recursive(folder, &inside).with_context(|| folder.display().to_string())?;
    }
    env::set_current_dir(&root)?;
    // pivot_root stacks the old root on the new one (pivot_root(2)); unmounting detaches it.
    pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH)?;
    Ok(env::set_current_dir("/")?)
}

/// Escapes a path for the options of overlayfs (fs/overlayfs/params.c of Linux).
fn escaped(path: &Path) -> String {
    let text = path.display().to_string();
    text.replace('\\', r"\\").replace(':', r"\:").replace(',', r"\,")
}
