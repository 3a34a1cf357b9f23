//! Components that take minutes or all memory to compile: only the compiler process ends, at its limits. The limits are
//! its own, or lower ones that the daemon inherited, as here.

use std::{
    fmt::Write as _,
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use xenplug_tests::harness::{TestHost, build_directory, plugins_directory};

use crate::refused::{assert_refused, wrong};

/// Seconds of processor time of the compiler at a start, and at a reload. The daemon has as many for itself.
const AT_START: u32 = 1;
const AT_RELOAD: u32 = 2;
/// KiB of address space: enough for a good plugin.
const MEMORY: u32 = 400_000;
/// Time for a compilation on a loaded host.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Writes a component with these functions to a file.
fn component(host: &TestHost, name: &str, functions: &str) -> Result<PathBuf> {
    let path = host.directory().join(name);
    let text = format!("(component (core module (type $t (func (param i32) (result i32))) {functions}))");
    fs::write(&path, wat::parse_str(text)?)?;
    Ok(path)
}

/// Returns a function with many locals that live across many conditional blocks, so that the compiler has to
/// distinguish each local's value after each block.
fn blocks() -> String {
    const LOCALS: usize = 2000;
    let mut text = format!("(func (type $t) (local {}) ", "i32 ".repeat(LOCALS));
    for block in 0..20_000 {
        let [one, other] = [7919, 104_729].map(|prime| 1 + block * prime % LOCALS);
        let _ = write!(
            text,
            "block local.get 0 br_if 0 local.get {one} local.get {other} i32.add local.set {one} end "
        );
    }
    for local in 1..=LOCALS {
        let _ = write!(text, "local.get {local} drop ");
    }
    text + "local.get 1)"
}

/// Returns a function of nested loops.
fn loops() -> String {
    const DEPTH: usize = 2000;
    let mut text = format!("(func (type $t) (local {}) ", "i32 ".repeat(DEPTH));
    for depth in 0..DEPTH {
        let (one, other) = (1 + depth, 1 + depth * 31 % DEPTH);
        let _ = write!(text, "loop local.get {one} local.get {other} i32.add local.set {one} ");
    }
    text + &"local.get 0 br_if 0 end ".repeat(DEPTH) + "local.get 1)"
}

/// Returns a great number of functions.
fn functions() -> String {
    "(func (type $t) local.get 0 local.get 0 i32.add)".repeat(100_000)
}

#[test]
fn component_compiling_too_long_is_refused_at_start_and_reload() -> Result<()> {
    // The first start compiles the good plugins.
    let mut host = TestHost::with_daemon()?;
    host.daemon_mut()?.terminate()?;
    let bomb = component(&host, "blocks.wasm", &blocks())?;
    let mut config = wrong(&host, &bomb)?;
    config.processor = Some(AT_START);
    assert_refused(&host, &config, &["blocks.wasm", "ran out of memory or time"])?;

    let mut config = host.config()?;
    config.processor = Some(AT_RELOAD);
    host.start_daemon(config)?;
    let baseline = host.baseline()?;
    for (name, functions) in [("loops.wasm", loops()), ("functions.wasm", functions())] {
        let bomb = component(&host, name, &functions)?;
        let config = wrong(&host, &bomb)?;
        fs::write(config.file(), &config.text)?;
        let logged = host.daemon().context("it runs")?.log().len();
        host.daemon_mut()?.signal(Signal::HUP)?;
        // While the compiler runs.
        let good = [host.attach_disk(3, 0)?, host.attach_vif(3, 0)?];
        for device in &good {
            host.expect_connected(device)?;
        }
        let until = Instant::now() + TIMEOUT;
        let errors = loop {
            let log = host.daemon().context("it runs")?.log().split_off(logged);
            let errors: Vec<String> = log
                .lines()
                .filter(|line| line.contains("ERROR"))
                .map(str::to_owned)
                .collect();
            if !errors.is_empty() {
                break errors;
            }
            ensure!(Instant::now() < until, "{name}: nothing is logged: {log}");
            thread::sleep(Duration::from_millis(20));
        };
        ensure!(errors.len() == 1, "not one line: {errors:?}");
        for word in ["the configuration stays as it was", name, "ran out of memory or time"] {
            ensure!(errors[0].contains(word), "{word:?} is not in {errors:?}");
        }
        host.end_guest(3, &good)?;
        baseline.assert_same(&host)?;
    }
    Ok(())
}

#[test]
fn compiler_process_ends_when_it_exceeds_its_memory() -> Result<()> {
    let host = TestHost::new()?;
    let compile = |component: &PathBuf| {
        let mut compiler = Command::new("prlimit");
        compiler
            .arg(format!("--as={}", u64::from(MEMORY) << 10))
            .arg(build_directory()?.join("xenplugd"))
            .arg("compile-component")
            .stdin(File::open(component)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Ok::<_, anyhow::Error>(compiler.output()?)
    };
    let good = compile(&plugins_directory()?.join("phy.wasm"))?;
    ensure!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let began = Instant::now();
    let bad = compile(&component(&host, "blocks.wasm", &blocks())?)?;
    ensure!(!bad.status.success(), "it was compiled with {MEMORY} KiB");
    ensure!(bad.stdout.is_empty(), "{} bytes of code", bad.stdout.len());
    ensure!(began.elapsed() < TIMEOUT, "it took {:?}", began.elapsed());
    Ok(())
}

#[test]
fn compiler_process_sets_its_limits_before_reading() -> Result<()> {
    let mut compiler = Command::new(build_directory()?.join("xenplugd"))
        .arg("compile-component")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let expected = [
        ("Max cpu time", "120"),
        ("Max address space", "8589934592"),
        ("Max file size", "0"),
        ("Max core file size", "0"),
    ];
    let until = Instant::now() + TIMEOUT;
    let limited = loop {
        let limits = fs::read_to_string(format!("/proc/{}/limits", compiler.id()))?;
        let is_so = |(name, most): &(&str, &str)| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name));
            line.is_some_and(|values| values.split_whitespace().take(2).all(|value| value == *most))
        };
        if expected.iter().all(is_so) {
            break Ok(());
        }
        if Instant::now() > until {
            break Err(limits);
        }
        thread::sleep(Duration::from_millis(5));
    };
    compiler.kill()?;
    compiler.wait()?;
    ensure!(limited.is_ok(), "{limited:?}");
    Ok(())
}
