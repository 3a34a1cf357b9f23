//! Independence of the suite from the host: it never runs programs, libraries or scripts that the host has installed.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{DebianRoot, Device, Disk, TestHost, Vif, build_directory};

/// Environment variable of the process that the test starts in a root that it enters once more.
const CHILD: &str = "XENPLUG_TEST_INDEPENDENCE";

/// Programs that the original scripts and the harness run.
const PROGRAMS: &[&str] = &[
    "awk",
    "bash",
    "brctl",
    "ip",
    "iptables",
    "losetup",
    "nft",
    "ovs-vsctl",
    "sed",
    "xenstore-read",
    "xenstore-write",
];

/// Replaces the host's programs with traps in this mount namespace. `$1` is the directory of traps.
const SET_TRAPS: &str = r#"
for program in "$1"/*; do
    for folder in /usr/bin /usr/sbin; do
        name=${program##*/}
        [ ! -e "$folder/$name" ] || mount --bind "$program" "$(readlink -f "$folder/$name")"
    done
done
mount --bind "$1" /etc/xen/scripts
shift
exec "$@"
"#;

#[test]
fn machine_programs_and_scripts_are_never_run() -> Result<()> {
    if env::var_os(CHILD).is_some() {
        return attach_with_the_original_scripts();
    }
    DebianRoot::find()?;
    let directory = tempfile::tempdir()?;
    let at = |name: &str| directory.path().join(name);
    let (mark, traps) = (at("mark"), at("traps"));
    for name in ["traps", "root", "tmp"] {
        fs::create_dir(at(name))?;
    }
    for program in PROGRAMS.iter().chain(&["block", "vif-bridge"]) {
        let trap = traps.join(program);
        fs::write(
            &trap,
            format!("#!/bin/sh\necho {program} >> {}\nexit 1\n", mark.display()),
        )?;
        fs::set_permissions(&trap, fs::Permissions::from_mode(0o755))?;
    }

    let trapped = |program: &Path| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c", SET_TRAPS, "sh"])
            .args([&traps, program])
            .env(
                "PATH",
                format!("{}:{}", traps.display(), env::var("PATH").unwrap_or_default()),
            )
            .env("LD_LIBRARY_PATH", &traps)
            .stdin(Stdio::null());
        command
    };
    // The traps work: the host's program makes the mark file.
    let sprung = trapped(Path::new("brctl")).output()?;
    ensure!(!sprung.status.success() && mark.exists(), "no trap: {sprung:?}");
    fs::remove_file(&mark)?;

    let built = build_directory()?;
    let done = trapped(&built.join("xenplug-enter"))
        .arg("--root")
        .arg(env::var_os("XENPLUG_DEBIAN").context("XENPLUG_DEBIAN")?)
        .arg("--mount-point")
        .arg(at("root"))
        .arg("--tmp")
        .arg(at("tmp"))
        .args(["--bind", concat!(env!("CARGO_MANIFEST_DIR"), "/..")])
        .arg("--bind")
        .arg(built.parent().context("target/release is in target")?)
        .arg("--")
        .arg(env::current_exe()?)
        .args(["--exact", "machine_programs_and_scripts_are_never_run", "--nocapture"])
        .env(CHILD, "1")
        .output()?;
    let message = String::from_utf8_lossy(&done.stdout);
    ensure!(
        done.status.success(),
        "{message}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    ensure!(message.contains("1 passed"), "{message}");
    ensure!(
        !mark.exists(),
        "a program of the host was run: {}",
        fs::read_to_string(&mark)?
    );
    Ok(())
}

/// Attaches a disk and a vif with the original scripts on the real store.
fn attach_with_the_original_scripts() -> Result<()> {
    let mut host = TestHost::new()?;
    let image = host.image("a.img", 4)?;
    let (disk, vif) = (Device::disk(3, 0), Device::vif(3, 0));
    for (device, nodes) in [(disk, Disk::on(&image)), (vif, Vif::on("xenbr0"))] {
        host.attach(&device, &nodes)?;
        host.expect_state(&device, "2")?;
        host.scripts().plug(&device)?;
        host.expect_connected(&device)?;
    }
    Ok(())
}
