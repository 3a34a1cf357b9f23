//! Process of the daemon: starts it with a configuration, waits until it serves, queries it and ends it.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::{Namespace, build_directory};

/// Time limit for the daemon to report that it serves. It may have to compile its plugins first.
const START: Duration = Duration::from_secs(30);
/// Largest number of descriptors that are no files: the daemon's own 10 or so, and a netlink socket for each of 32
/// threads.
const POOLED: usize = 48;
/// Time limit for the daemon to end.
const END: Duration = Duration::from_secs(10);

/// Configuration of the daemon, as text that a test may change, with directories of its own.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory of the file and of the daemon's directories.
    pub directory: PathBuf,
    /// Text of the file.
    pub text: String,
    /// Description of a host that exists only in memory.
    pub simulated: Option<PathBuf>,
    /// Limit of processor time in seconds, for the daemon and for each program that it starts.
    pub processor: Option<u32>,
}

impl Config {
    /// Returns the standard configuration: the plugins `phy`, for files in a directory, and `vif-bridge`, for bridges
    /// named `xenbr*`.
    pub fn standard(directory: &Path, images: &Path) -> Result<Self> {
        let plugins = plugins_directory()?;
        let text = format!(
            r#"mode = "driver-domain"

[paths]
plugins = {plugins:?}
run = {run:?}
cache = {cache:?}

[plugin.phy]
component = "phy.wasm"
kinds = ["vbd"]
scripts = ["block"]
[plugin.phy.grant]
block = [{{ path = {images:?}, access = "rw" }}]
loop = true

[plugin.vif-bridge]
component = "vif-bridge.wasm"
kinds = ["vif"]
scripts = ["vif-bridge"]
[plugin.vif-bridge.grant]
bridges = ["xenbr*"]
firewall = true
"#,
            run = directory.join("run"),
            cache = directory.join("cache"),
        );
        Ok(Self {
            directory: directory.to_owned(),
            text,
            simulated: None,
            processor: None,
        })
    }

    /// Replaces a part of the text. The part must be there.
    pub fn replacing(mut self, part: &str, by: &str) -> Self {
        assert!(self.text.contains(part), "the configuration has no {part:?}");
        self.text = self.text.replace(part, by);
        self
    }

    /// Appends text.
    pub fn with(mut self, more: &str) -> Self {
        self.text.push_str(more);
        self
    }

    /// Returns the directory of the daemon's control socket and journal.
    pub fn run_directory(&self) -> PathBuf {
        self.directory.join("run")
    }

    /// Returns the path of the file.
    pub fn file(&self) -> PathBuf {
        self.directory.join("xenplugd.toml")
    }

    fn write(&self) -> Result<()> {
        fs::create_dir_all(self.run_directory())?;
        fs::create_dir_all(self.directory.join("cache"))?;
        fs::write(self.file(), &self.text).context("writing the configuration")
    }
}

/// Running `xenplugd`. Dropping it sends SIGTERM, and SIGKILL if the process does not end.
#[derive(Debug)]
pub struct Daemon {
    command: Command,
    config: Config,
    process: Child,
    /// Socket on which the daemon reports that it serves; `None` once it has.
    notify: Option<UnixDatagram>,
}

impl Daemon {
    /// Starts the daemon and waits until it serves. An error contains the daemon's log.
    pub fn start(socket: &Path, namespace: Option<&Namespace>, config: Config) -> Result<Self> {
        config.write()?;
        let mut command = command(socket, namespace, &config)?;
        let (process, notify) = spawn(&mut command, &config)?;
        let mut daemon = Self {
            command,
            config,
            process,
            notify: Some(notify),
        };
        daemon.await_service()?;
        Ok(daemon)
    }

    /// Starts the daemon where it has to refuse, and returns its output.
    pub fn refused(socket: &Path, namespace: Option<&Namespace>, config: &Config) -> Result<Output> {
        config.write()?;
        let mut process = command(socket, namespace, config)?
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("xenplugd")?;
        match ended_within(&mut process, END)? {
            Some(_) => Ok(process.wait_with_output()?),
            None => {
                process.kill()?;
                process.wait()?;
                bail!("the daemon runs, and should have refused");
            }
        }
    }

    /// Returns the configuration that the daemon was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::TERM)?;
        match ended_within(&mut self.process, END)? {
            Some(status) => Ok(status),
            None => bail!("the daemon does not end\n{}", self.log()),
        }
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Returns the exit status if the daemon has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }

    /// Starts the daemon again with its configuration, after it has ended, and waits until it serves.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        self.await_service()
    }

    /// Starts the daemon again, without waiting until it serves.
    pub fn launch(&mut self) -> Result<()> {
        self.config.write()?;
        let (process, notify) = spawn(&mut self.command, &self.config)?;
        (self.process, self.notify) = (process, Some(notify));
        Ok(())
    }

    /// Waits until the daemon serves. Fails if it ends or takes too long.
    fn await_service(&mut self) -> Result<()> {
        let until = Instant::now() + START;
        while !self.serves()? {
            if let Some(status) = self.ended()? {
                bail!("the daemon ended with {status}\n{}", self.log());
            }
            if Instant::now() > until {
                self.kill()?;
                bail!("the daemon does not serve after {START:?}\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Returns true if the daemon has reported that it serves, by `READY=1`.
    pub fn serves(&mut self) -> Result<bool> {
        let mut message = [0; 512];
        while let Some(notify) = &self.notify {
            match notify.recv(&mut message) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&message[..length]);
                    if text.lines().any(|line| line == "READY=1") {
                        self.notify = None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).context("a process has an id")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Returns the daemon's log, across restarts.
    pub fn log(&self) -> String {
        log(&self.config)
    }

    /// Returns the output of `xenplug status --json`.
    pub fn status(&self) -> Result<Value> {
        let done = Command::new(build_directory()?.join("xenplug"))
            .args(["status", "--json"])
            // The configuration names the socket.
            .env("XENPLUG_CONFIG", self.config.file())
            .output()
            .context("xenplug status")?;
        ensure!(
            done.status.success(),
            "xenplug status: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(serde_json::from_slice(&done.stdout)?)
    }

    /// Returns the files, loop and block devices that the daemon has open for devices, with their counts. The daemon
    /// pools other descriptors (sockets, epoll), at most one for each worker thread; more than that are returned too.
    pub fn descriptors(&self) -> Result<BTreeMap<String, String>> {
        const LASTING: [&str; 5] = ["/dev/null", "/dev/loop-control", "/dev/pts", "/dev", "/"];
        let mut files = BTreeMap::<String, usize>::new();
        let mut others = 0;
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid()))? {
            // The descriptor was closed in between.
            let Ok(target) = fs::read_link(entry?.path()) else {
                continue;
            };
            let target = target.to_string_lossy().into_owned();
            if !target.starts_with('/') {
                others += 1;
            } else if !LASTING.contains(&target.as_str()) && !target.ends_with("/mountinfo") {
                *files.entry(target).or_default() += 1;
            }
        }
        let mut all: BTreeMap<String, String> = files
            .into_iter()
            .map(|(target, times)| (target, format!("x {times}")))
            .collect();
        if others > POOLED {
            all.insert("sockets and the like".to_owned(), format!("x {others}"));
        }
        Ok(all)
    }

    /// Returns the daemon's memory in KiB: resident (`VmRSS`), and with shared pages in part (`Pss`).
    pub fn memory(&self) -> Result<(u64, u64)> {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid()))?;
        let field = |name: &str| {
            let line = rollup
                .lines()
                .find(|line| line.starts_with(name))
                .with_context(|| format!("no {name}"))?;
            line.split_whitespace()
                .nth(1)
                .context("no number")?
                .parse::<u64>()
                .context(line.to_owned())
        };
        Ok((field("Rss:")?, field("Pss:")?))
    }

    /// Returns the processor time that the daemon has used, user and system, in clock ticks (of 10 ms).
    pub fn processor_ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat")?;
        // utime and stime are fields 14 and 15; the first one here is field 3.
        fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| Ok(ticks.parse::<u64>()?))
            .sum()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        if self.terminate().is_err() {
            let _ = self.kill();
        }
    }
}

/// Returns the directory of the components: `XENPLUG_PLUGINS`, else `plugins` beside the build directory.
pub fn plugins_directory() -> Result<PathBuf> {
    Ok(match env::var_os("XENPLUG_PLUGINS") {
        Some(plugins) => PathBuf::from(plugins),
        None => build_directory()?
            .parent()
            .context("the build directory has no parent")?
            .join("plugins"),
    })
}

fn command(socket: &Path, namespace: Option<&Namespace>, config: &Config) -> Result<Command> {
    let program = match (&config.simulated, env::var_os("XENPLUGD")) {
        (Some(_), _) => build_directory()?.join("xenplugd-simulated"),
        (None, Some(program)) => PathBuf::from(program),
        (None, None) => build_directory()?.join("xenplugd"),
    };
    ensure!(
        program.exists(),
        "{} is missing: `cargo xtask build` builds it",
        program.display()
    );
    let (first, limit) = match config.processor {
        Some(seconds) => (Path::new("prlimit"), Some(format!("--cpu={seconds}"))),
        None => (&*program, None),
    };
    let mut command = namespace.map_or_else(|| Command::new(first), |namespace| namespace.command(first));
    if let Some(limit) = limit {
        command.arg(limit).arg(&program);
    }
    command
        .arg("--config")
        .arg(config.file())
        .env("XENSTORED_PATH", socket)
        // A thread that cannot start ends the program. A backtrace would delay that.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null());
    if let Some(host) = &config.simulated {
        command.env("XENPLUG_SIMULATED_HOST", host);
    }
    Ok(command)
}

/// Starts the daemon. Returns the process, and the socket on which the daemon reports that it serves.
fn spawn(command: &mut Command, config: &Config) -> Result<(Child, UnixDatagram)> {
    let notify = config.directory.join("notify");
    let _ = fs::remove_file(&notify);
    let socket = UnixDatagram::bind(&notify)?;
    socket.set_nonblocking(true)?;
    let log_file = File::options()
        .create(true)
        .append(true)
        .open(config.directory.join("log"))?;
    let process = command
        .env("NOTIFY_SOCKET", &notify)
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .spawn()
        .context("xenplugd")?;
    Ok((process, socket))
}

fn log(config: &Config) -> String {
    fs::read_to_string(config.directory.join("log")).unwrap_or_default()
}

fn ended_within(process: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let until = Instant::now() + limit;
    loop {
        match process.try_wait()? {
            None if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
            ended => return Ok(ended),
        }
    }
}
