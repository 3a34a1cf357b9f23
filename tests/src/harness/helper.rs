//! Fake helpers, for programs that need what the host lacks (a kernel module, a tapdisk). They are shell scripts that
//! keep state and answer as the real programs do, and record how they were called.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// Text of the fake `iscsiadm`, without the line that sets its folder.
pub const ISCSIADM: &str = include_str!("helper/iscsiadm.sh");

/// Command line of the fake tapdisk, as /proc shows it.
const TAPDISK: &[u8] = b"sleep\x0086421\0";

/// Numbers of the fake NBD devices. They are beyond the devices that the kernel's module creates.
const NBD: std::ops::Range<u32> = 60..256;

/// Fake helper. Dropping it removes what it made outside of its folder.
#[derive(Debug)]
pub struct Helper {
    name: &'static str,
    program: PathBuf,
    folder: PathBuf,
}

impl Helper {
    /// Writes a fake helper into a folder, with its state beside it. The text finds the state in `$here` and the
    /// arguments in `$*`.
    pub fn new(folder: &Path, name: &'static str, text: &str) -> Result<Self> {
        let helper = Self {
            name,
            program: folder.join(name),
            folder: folder.join(format!("{name}.d")),
        };
        fs::create_dir_all(&helper.folder)?;
        let here = &helper.folder;
        install(
            &helper.program,
            &format!("#!/bin/sh\nhere={here:?}\necho \"$*\" >>$here/calls\n{text}"),
        )?;
        Ok(helper)
    }

    /// Writes a fake `tap-ctl`.
    pub fn tap_ctl(folder: &Path) -> Result<Self> {
        Self::new(folder, "tap-ctl", include_str!("helper/tap-ctl.sh"))
    }

    /// Writes a fake `iscsiadm` for a portal that has these targets.
    pub fn iscsiadm(folder: &Path, portal: &str, targets: &[&str]) -> Result<Self> {
        let helper = Self::new(folder, "iscsiadm", ISCSIADM)?;
        let lines = targets.iter().map(|target| format!("{portal}:3260,1 {target}\n"));
        fs::write(helper.file("targets"), lines.collect::<String>())?;
        fs::File::create(helper.file("disk.img"))?.set_len(4 << 20)?;
        Ok(helper)
    }

    /// Writes a fake `multipath` with a device of this name.
    pub fn multipath(folder: &Path, device: &str) -> Result<Self> {
        let helper = Self::new(folder, "multipath", include_str!("helper/multipath.sh"))?;
        fs::write(helper.file("name"), device)?;
        Ok(helper)
    }

    /// Writes a fake `nbd-client` with this number of devices: loop devices under other names, see [`Helper::devices`].
    pub fn nbd_client(folder: &Path, devices: usize) -> Result<Self> {
        let helper = Self::new(folder, "nbd-client", include_str!("helper/nbd-client.sh"))?;
        let mut numbers = NBD;
        for index in 0..devices {
            let image = helper.file(&format!("{index}.img"));
            fs::File::create(&image)?.set_len(4 << 20)?;
            let mut losetup = Command::new("losetup");
            let attached = losetup.args(["--find", "--show"]).arg(image).output()?;
            let device = String::from_utf8(attached.stdout)?;
            let minor = device.trim().trim_start_matches("/dev/loop");
            // All processes of the host share the numbers; creating the node reserves one.
            let made = numbers.find(|number| {
                let mut mknod = Command::new("mknod");
                mknod.args([&format!("/dev/nbd{number}"), "b", "7", minor]);
                mknod
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success())
            });
            let path = format!("/dev/nbd{}", made.context("no number is free for an NBD device")?);
            for list in ["devices", "made"] {
                helper.append(list, &path)?;
            }
        }
        Ok(helper)
    }

    /// Returns the paths of the helper's devices.
    pub fn devices(&self) -> Vec<String> {
        self.lines("devices")
    }

    /// Returns the number of NBD devices of a host that has the fake ones.
    pub const fn nbd_devices() -> u32 {
        NBD.end
    }

    /// Returns the path of a file of the helper's state.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the lines of a file of the helper's state; none if there is no such file.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Returns the helper's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the helper's rules in the configuration, one for each list of patterns.
    pub fn rules(&self, patterns: &[&[&str]]) -> String {
        rules(&self.program, patterns)
    }

    /// Returns the arguments of each call, in order.
    pub fn calls(&self) -> Vec<String> {
        self.lines("calls")
    }

    /// Clears the record of calls.
    pub fn forget_calls(&self) -> Result<()> {
        Ok(fs::write(self.file("calls"), "")?)
    }

    fn append(&self, name: &str, line: &str) -> Result<()> {
        let mut file = fs::File::options().create(true).append(true).open(self.file(name))?;
        Ok(writeln!(file, "{line}")?)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        for pid in self.lines("started") {
            if fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == TAPDISK) {
                let _ = Command::new("kill").args(["-9", &pid]).status();
            }
        }
        for path in self.lines("made") {
            let _ = fs::remove_file(&path);
            // Only empty folders are removed, because other fake helpers may use them too.
            let mut folders = Path::new(&path).ancestors().skip(1);
            while let Some(folder) = folders.next().filter(|folder| *folder != Path::new("/dev")) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
    }
}

/// Returns the rules of a helper in the configuration, one for each list of patterns.
pub fn rules(program: &Path, patterns: &[&[&str]]) -> String {
    let name = program.file_name().unwrap_or_default();
    let rules = patterns
        .iter()
        .map(|args| format!("{{ name = {name:?}, path = {program:?}, args = {args:?} }}"));
    rules.collect::<Vec<_>>().join(", ")
}

/// Writes a program by another program. The kernel does not execute a file that this process has open for writing, and
/// a process that another thread starts inherits the descriptor for a moment.
pub fn install(path: &Path, text: &str) -> Result<()> {
    let mut install = Command::new("install")
        .args(["--mode=755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .context("install (coreutils)")?;
    Write::write_all(
        &mut install.stdin.take().context("install has no input")?,
        text.as_bytes(),
    )?;
    let status = install.wait()?;
    ensure!(status.success(), "install {}: {status}", path.display());
    Ok(())
}
