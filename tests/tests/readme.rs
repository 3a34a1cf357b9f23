//! Runs every command of the README. Those that install and start Xenplug run in a driver domain of their own, whose
//! `/usr`, `/etc`, `/var` and `/run` are temporary copies.

use std::{
    fs::{self, File},
    os::unix::{fs::symlink, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{self, Child, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use xenplug_tests::{
    harness::{Device, Disk, TestHost, Vif, build_directory, detach_below},
    readme::{Command, commands},
};

/// Time for the daemon to handle a request.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Writes below these directories stay in memory. `/run` is the namespace's own already.
const COPIES: &str = "for one in usr etc var; do
    mkdir -p /run/.copy/$one/upper /run/.copy/$one/work
    mount -t overlay -o lowerdir=/$one,upperdir=/run/.copy/$one/upper,workdir=/run/.copy/$one/work overlay /$one
done";

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

#[test]
fn readme_commands_run() -> Result<()> {
    let readme = fs::read_to_string(root().join("README.md"))?;
    let mut domain = DriverDomain::new()?;
    let mut commands = commands(&readme)?;
    // The daemon of this test serves a driver domain, so that the commands for dom0 come after those that use it, and
    // the removal comes last.
    let in_dom0 = |command: &Command<'_>| command.section == "In dom0" || command.line.starts_with("xenplug scripts");
    commands.sort_by_key(|command| (command.section.starts_with("Back to"), in_dom0(command)));
    for Command { line, .. } in commands {
        domain
            .run_command(line)
            .with_context(|| format!("`{line}`\n{}", domain.log()))?;
    }
    ensure!(
        domain.was_served,
        "the README does not start the daemon, or does not stop it"
    );
    Ok(())
}

#[test]
fn unknown_readme_command_is_found() -> Result<()> {
    let mut domain = DriverDomain::new()?;
    ensure!(domain.run_command("rm -r x").is_err() && domain.run_command("xenplugd --no-such").is_err());
    Ok(())
}

/// Lines of a systemd unit.
struct Unit(String);

impl Unit {
    /// Returns the values of a key.
    fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .lines()
            .filter_map(move |line| line.strip_prefix(key)?.strip_prefix('='))
    }

    fn one<'a>(&'a self, key: &'a str) -> Result<&'a str> {
        self.all(key).next().with_context(|| format!("the unit has no {key}"))
    }
}

/// A driver domain in which Xenplug is not installed at first.
struct DriverDomain {
    // The first field, so that the daemon ends before the host.
    daemon: Option<Running>,
    host: TestHost,
    clone: PathBuf,
    devices: Vec<Device>,
    /// Set after the daemon has served the devices and was stopped.
    was_served: bool,
}

/// Daemon, started as its unit does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl DriverDomain {
    fn new() -> Result<Self> {
        let host = TestHost::apart()?;
        // A clone as `cargo xtask build` leaves it, wherever the build directory is.
        let clone = host.directory().join("clone");
        fs::create_dir(&clone)?;
        symlink(root().join("examples"), clone.join("examples"))?;
        symlink(
            build_directory()?.parent().context("target/release is in target")?,
            clone.join("target"),
        )?;
        let domain = Self {
            daemon: None,
            host,
            clone,
            devices: Vec::new(),
            was_served: false,
        };
        domain
            .sh(COPIES)
            .context("writable copies of /usr, /etc and /var (overlayfs)")?;
        domain.sh(&format!("mkdir -p {}", domain.images().display()))?;
        Ok(domain)
    }

    /// Returns a directory of this test, mounted where the example configuration has its images.
    fn images(&self) -> PathBuf {
        let own = self.host.directory().file_name().unwrap_or_default();
        Path::new("/var/lib/xen/images").join(own)
    }

    /// Returns a command in the domain, with the clone as its directory.
    fn command(&self, program: &str) -> process::Command {
        let mut command = self.host.namespace().command(program);
        self.host.xenstored().equip(&mut command);
        command.current_dir(&self.clone).stdin(Stdio::null());
        command
    }

    /// Runs a line of shell in the domain, and returns its output.
    fn sh(&self, line: &str) -> Result<String> {
        output_of(self.command("sh").args(["-ec", line]).output()?)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.host.directory().join("log")).unwrap_or_default()
    }

    fn unit(&self) -> Result<Unit> {
        Ok(Unit(self.sh("cat /etc/systemd/system/xenplugd.service")?))
    }

    /// Runs a command of the README.
    fn run_command(&mut self, line: &str) -> Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match *words {
            ["cargo", "xtask", task] => xtask(task),
            ["install", ..] | ["xenplugd", "--check"] => self.sh(line).map(drop),
            ["systemctl", "disable", "--now", "xenplugd.service"] => self.disable(),
            ["systemctl", "disable", "--now", other] => {
                let unit = self.unit()?;
                ensure!(
                    unit.all("Conflicts").any(|name| name == other),
                    "the unit does not stand in for {other}"
                );
                Ok(())
            }
            ["systemctl", "enable", "--now", "xenplugd.service"] => self.enable(),
            ["systemctl", "enable", "--now", other] => {
                let free = self.daemon.is_none() && self.unit()?.all("Conflicts").any(|name| name == other);
                ensure!(free, "{other} would meet xenplugd");
                Ok(())
            }
            ["systemctl", "reload", "xenplugd.service"] => self.reload(),
            ["xenplug", "status"] => self.prints(line, &["phy", "vif-bridge", "/var/lib/xen/images/", "connected"]),
            ["xenplug", "status", "--json"] => {
                self.prints(line, &["\"plugin\": \"phy\"", "\"mode\": \"driver-domain\""])
            }
            ["xenplug", "prepare", domain] => {
                let mut store = self.host.connect()?;
                store.write("/local/domain/1/name", domain)?;
                self.sh(line).map(drop)
            }
            ["xenplug", "attach", "--backend", _, "--frontend", guest, .., device] => {
                let mut store = self.host.connect()?;
                store.write("/local/domain/3/name", guest)?;
                let (_, image) = device.split_once("target=").context("no target")?;
                self.sh(&format!("truncate -s 4M {image}"))?;
                self.sh(line)?;
                self.prints("xenplug status", &[image])
            }
            ["xenplug", "detach", .., device] => {
                let before = self.sh("xenplug status")?;
                self.sh(line)?;
                let after = self.sh("xenplug status")?;
                ensure!(
                    before.lines().count() > after.lines().count(),
                    "{device} is detached, and before that it was {before}, and now {after}"
                );
                Ok(())
            }
            ["xenplug", "scripts", "install"] => {
                // The test's root has the scripts of Debian's package of Xen's tools.
                self.sh("test -e /etc/xen/scripts/block")?;
                self.sh(line)?;
                self.sh("test -e /etc/xen/scripts/block.xenplug-original")?;
                self.prints("cat /etc/xen/scripts/block", &["#!/usr/lib/xenplug/xenplug-script"])
            }
            ["xenplug", "scripts", "uninstall"] => {
                self.sh(line)?;
                let pristine = std::env::var("XENPLUG_DEBIAN").context("XENPLUG_DEBIAN")?;
                self.sh(&format!("diff -r {pristine}/etc/xen/scripts /etc/xen/scripts"))
                    .map(drop)
            }
            ["journalctl", "--unit", "xenplugd.service"] => {
                ensure!(!self.log().is_empty(), "the daemon has logged nothing");
                Ok(())
            }
            ["xenstore-write", node, "\"\""] => self.retry(node),
            ["xenplug", "scripts", "status"] => self.prints(line, &["block", "vif-bridge"]),
            ["curl", ..] => self.prints(line, &["xenplug_devices{", "xenplug_connects_total", "# EOF"]),
            _ => bail!("this test does not know the command"),
        }
    }

    fn prints(&self, line: &str, words: &[&str]) -> Result<()> {
        let output = self.sh(line)?;
        match words.iter().find(|word| !output.contains(**word)) {
            Some(word) => bail!("{word:?} is not in: {output}"),
            None => Ok(()),
        }
    }

    /// Acts as systemd: checks the unit, starts its program with its settings, and waits until it serves. Then attaches
    /// a disk and a vif.
    fn enable(&mut self) -> Result<()> {
        let unit = self.unit()?;
        assert_eq!(
            (unit.one("Type")?, unit.one("WantedBy")?),
            ("notify", "multi-user.target")
        );
        // The journal has to outlive the daemon.
        assert_eq!(
            (unit.one("RuntimeDirectoryPreserve")?, unit.one("KillMode")?),
            ("yes", "process")
        );
        // With it systemd makes openat2 fail (src/shared/seccomp-util.c, `seccomp_restrict_suid_sgid`).
        ensure!(unit.all("RestrictSUIDSGID").next().is_none(), "no disk could be opened");
        if self.sh("command -v systemd-analyze").is_ok() {
            let warnings = self.sh("systemd-analyze verify xenplugd.service 2>&1")?;
            ensure!(!warnings.contains("xenplugd.service"), "{warnings}");
        }
        for (top, key) in [("/run", "RuntimeDirectory"), ("/var/cache", "CacheDirectory")] {
            self.sh(&format!(
                "mkdir -p -m {} {top}/{}",
                unit.one(&format!("{key}Mode"))?,
                unit.one(key)?
            ))?;
        }
        if self.daemon.is_some() {
            return Ok(());
        }
        let start: Vec<&str> = unit.one("ExecStart")?.split_whitespace().collect();
        let powers: String = unit
            .one("CapabilityBoundingSet")?
            .split_whitespace()
            .map(|power| format!(",+{}", power.trim_start_matches("CAP_").to_lowercase()))
            .collect();

        let notify = self.host.directory().join("notify");
        let notifications = UnixDatagram::bind(&notify)?;
        notifications.set_read_timeout(Some(TIMEOUT))?;
        let log = File::create(self.host.directory().join("log"))?;
        let daemon = self
            .command("setpriv")
            .arg("--no-new-privs")
            .arg(format!("--bounding-set=-all{powers}"))
            .args(start)
            .env("NOTIFY_SOCKET", notify)
            .env("XENSTORED_PATH", self.host.store())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.daemon = Some(Running(daemon));
        let mut message = [0; 512];
        let length = notifications
            .recv(&mut message)
            .context("the daemon does not say that it serves")?;
        ensure!(
            message[..length].starts_with(b"READY=1"),
            "it says {}",
            String::from_utf8_lossy(&message[..length])
        );

        let image = self.images().join("disk.img");
        self.sh(&format!("truncate -s 4M {}", image.display()))?;
        let (disk, vif) = (Device::disk(3, 0).served_by(1), Device::vif(3, 0).served_by(1));
        self.devices = vec![disk, vif];
        self.host.attach(&disk, &Disk::on(&image))?;
        self.host.attach(&vif, &Vif::on("xenbr0"))?;
        self.devices
            .iter()
            .try_for_each(|device| self.host.expect_connected(device))
    }

    fn reload(&self) -> Result<()> {
        let daemon = self.daemon.as_ref().context("it was not started")?;
        let unit = self.unit()?;
        self.sh(&unit.one("ExecReload")?.replace("$MAINPID", &daemon.0.id().to_string()))?;
        let until = Instant::now() + TIMEOUT;
        while !self.log().contains("the configuration was read again") {
            ensure!(Instant::now() < until, "it was not read again");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Attaches a disk without an image, adds the image, and writes the node: the disk then connects.
    fn retry(&mut self, node: &str) -> Result<()> {
        let backend = node.strip_suffix("/hotplug-status").context("it is another node")?;
        let disk = Device::of_path(backend).context("it is no device")?;
        let image = self.images().join("late.img");
        self.host.attach(&disk, &Disk::on(&image))?;
        self.host.expect_failure(&disk, "error", &["late.img"])?;
        self.sh(&format!("truncate -s 4M {}", image.display()))?;
        let written = self.host.xenstored().tool("xenstore-write").args([node, ""]).status()?;
        ensure!(written.success(), "xenstore-write: {written}");
        self.devices.push(disk);
        self.host.expect_connected(&disk)
    }

    /// Detaches all devices, and stops the daemon as systemd does, if it runs.
    fn disable(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else {
            return Ok(());
        };
        let devices = std::mem::take(&mut self.devices);
        if let Err(error) = self.host.end_guest(3, &devices) {
            self.daemon = Some(daemon);
            return Err(error);
        }
        kill_process(
            Pid::from_raw(daemon.0.id().cast_signed()).context("a process has an id")?,
            Signal::TERM,
        )?;
        let status = daemon.0.wait()?;
        ensure!(status.success(), "{status}\n{}", self.log());
        self.was_served = true;
        Ok(())
    }
}

impl Drop for DriverDomain {
    fn drop(&mut self) {
        self.daemon = None;
        // The host cleans up only its own directory.
        let _ = detach_below(&self.images());
    }
}

/// Checks that a task of xtask exists. `.ci/run` runs those that a change has to pass.
fn xtask(task: &str) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let help = output_of(
        process::Command::new(cargo)
            .args(["xtask", task, "--help"])
            .current_dir(root())
            .output()?,
    )?;
    ensure!(help.contains(&format!("cargo xtask {task}")), "{help}");
    let gate = fs::read_to_string(root().join(".ci/run"))?;
    let run = gate
        .lines()
        .any(|line| line.trim_start_matches("exec ") == format!("cargo xtask {task}"));
    ensure!(run || task == "build", ".ci/run does not run it");
    Ok(())
}

/// Returns a command's standard output, or an error with all its output if it failed.
fn output_of(output: Output) -> Result<String> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{}: {stdout}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}
