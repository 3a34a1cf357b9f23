//! Fixture of the shim's tests: a real xenstored, a directory of scripts, a configuration, and a control socket on
//! which the test plays the daemon.

use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use xenplug_tests::harness::{DebianRoot, Device, Disk, Kind, Toolstack, Vif, Xenstored, build_directory};

/// Answer of a daemon after success.
pub(crate) const DONE: &str = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"outcome\":\"done\"}";

/// Original script that records its call in the file `ran` beside it.
pub(crate) const ORIGINAL: &str = "#!/bin/sh
dir=$(dirname \"$0\")
echo \"$(basename \"$0\") $* script=$script XENBUS_PATH=$XENBUS_PATH vif=$vif\" >> \"$dir/ran\"
exit ${ORIGINAL_EXIT:-0}
";

/// Store, scripts and configuration, without a daemon.
pub(crate) struct Fixture {
    toolstack: Toolstack,
    xenstored: Xenstored,
    directory: TempDir,
}

impl Fixture {
    /// Makes a store with guest 3, whose disk and vif are in state 2, and a configuration with this fallback.
    pub(crate) fn new(fallback: &str) -> Result<Self> {
        let xenstored = Xenstored::start(&DebianRoot::find()?)?;
        let mut toolstack = Toolstack::new(xenstored.connect()?);
        toolstack.build(3)?;
        toolstack.attach(&disk(), &Disk::on(Path::new("/var/lib/a.img")))?;
        toolstack.attach(&vif(), &Vif::on("xenbr0"))?;
        for device in [disk(), vif()] {
            toolstack.store().write(&format!("{}/state", device.backend()), "2")?;
        }
        let directory = tempfile::Builder::new().prefix("xenplug-scripts-").tempdir()?;
        fs::create_dir(directory.path().join("scripts"))?;
        fs::create_dir(directory.path().join("run"))?;
        let fixture = Self {
            toolstack,
            xenstored,
            directory,
        };
        fixture.configure(&format!(
            "mode = \"dom0\"\n[paths]\nrun = {:?}\n[scripts]\nfallback = {fallback:?}\n\
             [plugin.phy]\nscripts = [\"block\"]\n[plugin.vif]\nscripts = [\"vif-bridge\"]\n",
            fixture.directory.path().join("run")
        ))?;
        Ok(fixture)
    }

    /// Returns the directory of scripts.
    pub(crate) fn folder(&self) -> PathBuf {
        self.directory.path().join("scripts")
    }

    /// Replaces the configuration.
    pub(crate) fn configure(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.config(), text)?)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.directory.path().join("xenplugd.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/control.sock")
    }

    pub(crate) fn script(&self, name: &str) -> PathBuf {
        self.directory.path().join("scripts").join(name)
    }

    /// Writes a script by another program. A file that this process has open for writing cannot be executed
    /// (`ETXTBSY`), and processes that other threads start inherit the descriptor for a moment.
    pub(crate) fn put(&self, name: &str, text: &str, mode: u32) -> Result<PathBuf> {
        let path = self.script(name);
        let mut install = Command::new("install")
            .arg(format!("--mode={mode:o}"))
            .arg("/dev/stdin")
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .context("install (coreutils)")?;
        // The program ends with its input.
        install
            .stdin
            .take()
            .context("it has an input")?
            .write_all(text.as_bytes())?;
        let status = install.wait()?;
        ensure!(status.success(), "install {}: {status}", path.display());
        Ok(path)
    }

    /// Writes a shim by hand, which only needs the first line.
    pub(crate) fn shim(&self, name: &str) -> Result<PathBuf> {
        self.put(name, &format!("#!{}\n", program("xenplug-script")?.display()), 0o755)
    }

    /// Writes a shim by hand, and an original beside it.
    pub(crate) fn shim_with_original(&self, name: &str) -> Result<PathBuf> {
        self.put(&format!("{name}.xenplug-original"), ORIGINAL, 0o755)?;
        self.shim(name)
    }

    /// Returns the calls of originals.
    pub(crate) fn ran(&self) -> Result<Vec<String>> {
        match fs::read_to_string(self.script("ran")) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the command with which libxl runs a script for a device (`get_hotplug_env` in libxl_linux.c).
    pub(crate) fn command(&self, script: &Path, arguments: &str, device: &Device) -> Command {
        let mut command = Command::new(script);
        self.xenstored.equip(&mut command);
        command
            .args(arguments.split_whitespace())
            .env("XENPLUG_CONFIG", self.config())
            .env("script", script)
            .env("XENBUS_TYPE", device.kind.to_string())
            .env(
                "XENBUS_PATH",
                format!("backend/{}/{}/{}", device.kind, device.frontend, device.devid),
            )
            .env("XENBUS_BASE_PATH", "backend")
            .stdin(Stdio::null());
        if device.kind == Kind::Vif {
            command.env("netdev", "").env("vif", device.link());
        }
        command
    }

    /// Runs a script to its end. Returns exit code and output.
    pub(crate) fn run(&self, script: &str, arguments: &str, device: &Device) -> Result<Ended> {
        Ended::of(self.command(&self.script(script), arguments, device).output()?)
    }

    /// Runs a script while the played daemon answers one call with exactly these bytes. Returns the call too.
    pub(crate) fn run_answered(
        &self,
        answer: &str,
        script: &str,
        arguments: &str,
        device: &Device,
    ) -> Result<(Ended, Value)> {
        let listener = self.listen()?;
        thread::scope(|scope| {
            let daemon = scope.spawn(move || {
                let (mut stream, call) = accept(&listener)?;
                // A caller that was killed meanwhile does not read the answer.
                let _ = stream.write_all(answer.as_bytes());
                anyhow::Ok(call)
            });
            let ended = self.run(script, arguments, device);
            if ended.is_err() {
                // If no script calls, this connection ends the played daemon's wait.
                let _ = UnixStream::connect(self.socket());
            }
            let call = daemon.join().map_err(|_| anyhow::anyhow!("the daemon panicked"))?;
            Ok((ended?, call?))
        })
    }

    /// Makes a control socket, and replaces an existing one.
    pub(crate) fn listen(&self) -> Result<UnixListener> {
        match fs::remove_file(self.socket()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(UnixListener::bind(self.socket())?),
        }
    }

    /// Reads a device's `hotplug-status` and `hotplug-error`.
    pub(crate) fn published(&mut self, device: &Device) -> Result<(Option<String>, Option<String>)> {
        let store = self.toolstack.store();
        let mut find = |name: &str| store.find(&format!("{}/{name}", device.backend()));
        Ok((find("hotplug-status")?, find("hotplug-error")?))
    }

    /// Writes a node of a device's backend.
    pub(crate) fn write(&mut self, device: &Device, name: &str, value: &str) -> Result<()> {
        Ok(self
            .toolstack
            .store()
            .write(&format!("{}/{name}", device.backend()), value)?)
    }

    pub(crate) fn toolstack(&mut self) -> &mut Toolstack {
        &mut self.toolstack
    }

    /// Runs `xenplug scripts` with these arguments, on this directory and configuration.
    pub(crate) fn scripts(&self, words: &str) -> Result<Ended> {
        Ended::of(self.scripts_command(words)?.output()?)
    }

    /// Returns the command of [`Fixture::scripts`].
    pub(crate) fn scripts_command(&self, words: &str) -> Result<Command> {
        let mut command = Command::new(program("xenplug")?);
        command
            .arg("scripts")
            .args(words.split_whitespace())
            .arg("--folder")
            .arg(self.folder())
            .arg("--shim")
            .arg(program("xenplug-script")?)
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null());
        Ok(command)
    }
}

/// Exit code and output of a program.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: Output) -> Result<Self> {
        Ok(Self {
            code: output.status.code().with_context(|| format!("{}", output.status))?,
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }

    /// Checks the exit code, and that standard error has these words in one line, or no line without words.
    pub(crate) fn expect(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.code == code, "{self:?} and not {code}");
        ensure!(
            self.stderr.lines().count() == usize::from(!words.is_empty()),
            "{self:?}"
        );
        for word in words {
            ensure!(self.stderr.contains(word), "{word:?} is not in {self:?}");
        }
        Ok(())
    }
}

pub(crate) fn disk() -> Device {
    Device::disk(3, 0)
}

pub(crate) fn vif() -> Device {
    Device::vif(3, 0)
}

pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let program = build_directory()?.join(name);
    ensure!(
        program.exists(),
        "{} is missing: `cargo xtask build` builds it",
        program.display()
    );
    Ok(program)
}

/// Accepts one call. Returns its connection and body.
pub(crate) fn accept(listener: &UnixListener) -> Result<(UnixStream, Value)> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut request = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let read = stream.read(&mut bytes)?;
        ensure!(read > 0, "the call has no end");
        request.extend_from_slice(&bytes[..read]);
        let text = std::str::from_utf8(&request)?;
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            ensure!(head.starts_with("POST /script HTTP/1."), "{head}");
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .context("no length")?
                .parse()?;
            if body.len() == length {
                let body = serde_json::from_str(body)?;
                return Ok((stream, body));
            }
        }
    }
}
