//! Test suite: all tests natively in the root of Debian 12, those that compare with Xen's own parts in that of Debian
//! 13 as well, and on real Xen at the same time.

mod account;

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use account::{Account, Run};
use anyhow::{Context, Result, bail};

use crate::{
    binaries::{self, Binary},
    roots::{self, Release},
    terminal,
    workspace::Workspace,
};

/// Test that boots real Xen. It runs at the same time as all others.
const XEN: &str = "xen";

/// Tests that measure time or memory. They run before Xen boots, because an emulator at the same time would disturb
/// them.
const QUIET: &[&str] = &["load", "malicious_plugin"];

/// Tests that compare with Xen's scripts and store. They run in the roots of both releases.
const OF_BOTH_RELEASES: &[&str] = &["differential", "stores"];

/// Number of simulated histories with `--quick`; without it, 1,000.
const QUICK_SEEDS: &str = "50";

/// Selection of tests.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Arguments {
    /// True to skip real Xen and most of the simulated histories, for a quick run between two edits.
    pub(crate) quick: bool,
    /// Arguments for `cargo test`. If there are any, only the tests that they name run, in the root of Debian 12 or of
    /// the release in XENPLUG_RELEASE.
    pub(crate) cargo: Vec<String>,
}

impl Arguments {
    /// Returns true if tests on real Xen run.
    pub(crate) fn needs_xen(&self) -> bool {
        !self.quick && (self.cargo.is_empty() || self.cargo.iter().any(|argument| argument == XEN))
    }
}

/// Runs the tests. Fails if one of them failed.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    if !arguments.cargo.is_empty() {
        let release = match std::env::var("XENPLUG_RELEASE").as_deref() {
            Ok("13") => roots::NEWER,
            _ => roots::PRIMARY,
        };
        return workspace.test(release, &arguments.cargo);
    }
    terminal::step("Build the tests");
    let began = Instant::now();
    let all = binaries::build(workspace)?;
    let suite = Suite {
        workspace,
        quick: arguments.quick,
    };
    let (xen, native): (Vec<_>, Vec<_>) = all.iter().partition(|binary| binary.name == XEN);
    let (quiet, others): (Vec<_>, Vec<_>) = native.into_iter().partition(|binary| QUIET.contains(&&*binary.name));
    let mut account = Account::default();

    terminal::step("Run the tests");
    for binary in quiet {
        account.add(suite.run(binary, roots::PRIMARY, None)?);
    }
    let xen = match xen.first() {
        Some(binary) if !suite.quick => Some(suite.start_xen(binary)?),
        _ => None,
    };
    // The emulator uses two processors at times, and its guests have timeouts.
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .saturating_sub(1)
        .max(1);
    let threads = xen.is_some().then_some(threads);
    for binary in &others {
        account.add(suite.run(binary, roots::PRIMARY, threads)?);
    }
    for binary in others.iter().filter(|binary| OF_BOTH_RELEASES.contains(&&*binary.name)) {
        account.add(suite.run(binary, roots::NEWER, threads)?);
    }
    account.add(suite.run_documentation()?);
    if let Some(xen) = xen {
        account.add(xen.finish()?);
    }
    account.show(began.elapsed());
    if suite.quick {
        terminal::warning(&format!(
            "--quick left out real Xen, and all but {QUICK_SEEDS} of 1000 simulated histories"
        ));
    }
    account.result()
}

struct Suite<'a> {
    workspace: &'a Workspace,
    quick: bool,
}

impl Suite<'_> {
    /// Runs one binary to its end, with its output on the terminal.
    fn run(&self, binary: &Binary, release: Release, threads: Option<usize>) -> Result<Run> {
        let name = format!("{} (Debian {})", binary.name, release.number);
        terminal::step(&name);
        let mut command = binary.command(self.workspace, release)?;
        if let Some(threads) = threads {
            command.arg(format!("--test-threads={threads}"));
        }
        if self.quick {
            command.env("XENPLUG_SEEDS", QUICK_SEEDS);
        }
        watch(name, &mut command)
    }

    fn run_documentation(&self) -> Result<Run> {
        terminal::step("documentation");
        let mut cargo = self.workspace.test_command();
        watch("documentation".to_owned(), cargo.args(["--doc", "--quiet"]))
    }

    /// Starts the boots of real Xen, with their output in a file.
    fn start_xen(&self, binary: &Binary) -> Result<Xen> {
        let folder = self.workspace.target.join("xen");
        fs::create_dir_all(&folder)?;
        let log = folder.join("test.log");
        let file = File::create(&log).with_context(|| log.display().to_string())?;
        let mut command = binary.command(self.workspace, roots::PRIMARY)?;
        command.arg("--nocapture").stdout(file.try_clone()?).stderr(file);
        terminal::note(&format!(
            "real Xen boots beside the tests that follow; see {}",
            log.display()
        ));
        Ok(Xen {
            process: command.spawn().context("the tests on real Xen")?,
            log,
            began: Instant::now(),
        })
    }
}

/// Running boots of real Xen.
struct Xen {
    process: Child,
    log: PathBuf,
    began: Instant,
}

impl Xen {
    /// Waits for the end, and shows the output.
    fn finish(mut self) -> Result<Run> {
        terminal::step("xen (real Xen)");
        if self.process.try_wait()?.is_none() {
            terminal::note("wait for real Xen");
        }
        let before = account::processor_time()?;
        let status = self.process.wait()?;
        let mut run = Run::new("xen (real Xen)".to_owned());
        for line in fs::read_to_string(&self.log)?.lines() {
            terminal::answer(line);
            run.read(line);
        }
        run.finish(
            status,
            self.began.elapsed(),
            account::processor_time()?.saturating_sub(before),
        );
        Ok(run)
    }
}

impl Drop for Xen {
    fn drop(&mut self) {
        // The process still runs if another test program could not be started.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs a test program, and shows and reads its output.
fn watch(name: String, command: &mut Command) -> Result<Run> {
    let (began, before) = (Instant::now(), account::processor_time()?);
    let mut run = Run::new(name);
    let mut process = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    let Some(output) = process.stdout.take() else {
        bail!("no output")
    };
    for line in BufReader::new(output).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        terminal::answer(&line);
        run.read(&line);
    }
    let status = process.wait()?;
    run.finish(
        status,
        began.elapsed(),
        account::processor_time()?.saturating_sub(before),
    );
    Ok(run)
}
