//! Time from a script's start to its end when the script has nothing to do. The toolstack waits for this in addition to
//! the work on the device.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use xenplug_tests::harness::{DebianRoot, Device, Disk, Scripts, Toolstack, Xenstored, build_directory};

const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"outcome\":\"done\"}";

/// Times from a program's start to its end.
#[derive(Clone, Debug)]
pub struct Start {
    /// Program that was started.
    pub what: &'static str,
    /// The median of the runs.
    pub median: Duration,
    /// The fastest and the slowest run.
    pub range: (Duration, Duration),
    /// True for the shim, without a daemon.
    pub is_shim: bool,
}

/// Measures an empty program, the shim and the original script, `repeat` times each.
pub(super) fn measure(directory: &Path, repeat: u32) -> Result<Vec<Start>> {
    let shim = build_directory()?.join("xenplug-script");
    let mut starts = Vec::new();
    let mut take = |what, is_shim, run: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        // The first run fills the page cache.
        run()?;
        let mut times = Vec::new();
        for _ in 0..repeat.max(1) {
            let start = Instant::now();
            run()?;
            times.push(start.elapsed());
        }
        times.sort();
        starts.push(Start {
            what,
            median: times[times.len() / 2],
            range: (times[0], times[times.len() - 1]),
            is_shim,
        });
        Ok(())
    };
    take("an empty program", false, &mut || run(&mut Command::new("true")))?;
    take("xenplug-script --version", true, &mut || {
        run(Command::new(&shim).arg("--version"))
    })?;

    let daemon = Daemon::start(directory, &shim)?;
    take("the shim for block, answered at once", false, &mut || {
        run(&mut daemon.call())
    })?;

    let root = DebianRoot::find()?;
    let xenstored = Xenstored::start(&root)?;
    let mut toolstack = Toolstack::new(xenstored.connect()?);
    let device = Device::disk(1, 0);
    toolstack.build(1)?;
    // The script finds `physical-device` set, and has nothing to do.
    toolstack.attach(
        &device,
        &Disk::on(Path::new("/dev/null")).with("physical-device", "7:0"),
    )?;
    let scripts = Scripts {
        root: &root,
        xenstored: &xenstored,
        namespace: None,
    };
    take("the original block, nothing to do", false, &mut || {
        scripts.plug(&device)
    })?;
    Ok(starts)
}

/// Fake daemon that answers every call at once, and the shim that calls it.
struct Daemon {
    script: PathBuf,
    config: PathBuf,
}

impl Daemon {
    /// Starts a thread that answers calls until this program ends.
    fn start(directory: &Path, shim: &Path) -> Result<Self> {
        let (script, config) = (directory.join("block"), directory.join("xenplugd.toml"));
        fs::write(&script, format!("#!{}\n", shim.display()))?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        fs::write(&config, format!("mode = \"dom0\"\n[paths]\nrun = {directory:?}\n"))?;
        let listener = UnixListener::bind(directory.join("control.sock"))?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let mut filled = 0;
                while let Ok(read @ 1..) = stream.read(&mut request[filled..]) {
                    filled += read;
                    if request[..filled].ends_with(b"}") {
                        // A caller that has gone fails by itself, and is measured as failed.
                        let _ = stream.write_all(ANSWER);
                        break;
                    }
                }
            }
        });
        Ok(Self { script, config })
    }

    fn call(&self) -> Command {
        let mut command = Command::new(&self.script);
        command
            .arg("add")
            .env("XENPLUG_CONFIG", &self.config)
            .env("XENBUS_PATH", "backend/vbd/1/51712");
        command
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
