//! Programs that stand in for helpers which need what is not here (a kernel module, a tapdisk): shell scripts that keep
//! state as the real ones do, answer as they do, and write down how they were called.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// `iscsiadm`'s stand-in, but for the line that says where its state is.
pub const ISCSIADM: &str = include_str!("helper/iscsiadm.sh");

/// What tapdisk's stand-in is, as /proc shows it.
const TAPDISK: &[u8] = b"sleep\x0086421\0";

/// The first NBD device that a stand-in takes, and one that none is beyond: more than the kernel's module makes.
const NBD: std::ops::Range<u32> = 60..256;

/// A stand-in for a helper. What it made outside of its folder goes with it.
#[derive(Debug)]
pub struct Helper {
    name: &'static str,
    program: PathBuf,
    folder: PathBuf,
}

impl Helper {
    /// Writes one into a folder, with its state beside it. Its text finds that in `$here`, the arguments in `$*`.
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

    /// `tap-ctl`.
    pub fn tap_ctl(folder: &Path) -> Result<Self> {
        Self::new(folder, "tap-ctl", include_str!("helper/tap-ctl.sh"))
    }

    /// `iscsiadm`, of a portal that has these targets.
    pub fn iscsiadm(folder: &Path, portal: &str, targets: &[&str]) -> Result<Self> {
        let helper = Self::new(folder, "iscsiadm", ISCSIADM)?;
        let lines = targets.iter().map(|target| format!("{portal}:3260,1 {target}\n"));
        fs::write(helper.file("targets"), lines.collect::<String>())?;
        fs::File::create(helper.file("disk.img"))?.set_len(4 << 20)?;
        Ok(helper)
    }

    /// `multipath`, with a device of this name.
    pub fn multipath(folder: &Path, device: &str) -> Result<Self> {
        let helper = Self::new(folder, "multipath", include_str!("helper/multipath.sh"))?;
        fs::write(helper.file("name"), device)?;
        Ok(helper)
    }

    /// `nbd-client`, with so many devices: loop devices by another name, which [`Helper::devices`] tells.
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
            // The numbers are the whole machine's: one is taken by making its node.
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

    /// The paths of its devices.
    pub fn devices(&self) -> Vec<String> {
        self.lines("devices")
    }

    /// How many devices a machine with these has.
    pub const fn nbd_devices() -> u32 {
        NBD.end
    }

    /// A file of its state.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The lines of a file of its state; none if there is no such file.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.file(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What it is called.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its rules in the configuration, one for each list of patterns.
    pub fn rules(&self, patterns: &[&[&str]]) -> String {
        rules(&self.program, patterns)
    }

    /// How it was called, in order.
    pub fn calls(&self) -> Vec<String> {
        self.lines("calls")
    }

    /// Forgets how it was called.
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
            // Its folders as far as they are empty: others' may be in there too.
            let mut folders = Path::new(&path).ancestors().skip(1);
            while let Some(folder) = folders.next().filter(|folder| *folder != Path::new("/dev")) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
    }
}

/// The rules of a helper in the configuration, one for each list of patterns.
pub fn rules(program: &Path, patterns: &[&[&str]]) -> String {
    let name = program.file_name().unwrap_or_default();
    let rules = patterns
        .iter()
        .map(|args| format!("{{ name = {name:?}, path = {program:?}, args = {args:?} }}"));
    rules.collect::<Vec<_>>().join(", ")
}

/// Writes a program. Another one does: a file that this one has open for writing does not start, and what other threads
/// start inherits it for a moment.
pub fn install(path: &Path, text: &str) -> Result<()> {
    let mut install = Command::new("install")
        .args(["--mode=755", "/dev/stdin"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .context("install (coreutils)")?;
    Write::write_all(&mut install.stdin.take().context("it has an input")?, text.as_bytes())?;
    let status = install.wait()?;
    ensure!(status.success(), "install {}: {status}", path.display());
    Ok(())
}
