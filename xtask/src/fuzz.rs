//! Fuzzing with a stable compiler: cargo-fuzz without the sanitizer.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{terminal, workspace::Workspace};

/// Compiler flags for coverage counters (LLVM's `SanitizerCoverage`), as cargo-fuzz sets them.
const COUNTERS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// Limits of a property: one allocation and all memory in MiB, seconds, and bytes of an input.
const LIMITS: [&str; 4] = [
    "-malloc_limit_mb=32",
    "-rss_limit_mb=1024",
    "-timeout=30",
    "-max_len=8192",
];

/// Result of one target.
struct Outcome {
    name: String,
    executions: u64,
    edges: u64,
    features: u64,
    entries: usize,
}

/// Fuzzes some targets, or all, each for this number of seconds. With `keep` useful inputs go into the corpora of the
/// repository.
pub(crate) fn run(workspace: &Workspace, targets: &[String], seconds: u64, keep: bool) -> Result<()> {
    let all = names(workspace)?;
    if let Some(unknown) = targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target {unknown}, but {}", all.join(", "));
    }
    let programs = build(workspace)?;
    let chosen = if targets.is_empty() { &all[..] } else { targets };
    terminal::step(&format!("Fuzz {} for {seconds} s each", chosen.join(", ")));
    let mut outcomes = Vec::new();
    for name in chosen {
        let target = Target::new(workspace, &programs, name)?;
        outcomes.push(target.fuzz(seconds)?);
        if keep {
            target.keep()?;
        }
    }
    table(&outcomes, seconds);
    Ok(())
}

/// Lists the targets by their files.
fn names(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.root.join("fuzz/targets");
    let files = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let names = files.flatten().map(|file| file.path().with_extension(""));
    let mut names: Vec<String> = names
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

/// Compiles the targets with counters in all dependencies, and returns the programs' folder.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    terminal::step("Build the fuzzing targets");
    let version = terminal::read(Command::new("rustc").arg("-vV").current_dir(&workspace.root))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say what it compiles for")?;
    let folder = workspace.target.join("fuzz");
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(workspace.root.join("fuzz"))
        // With `--target`, cargo compiles build scripts and macros without the counters.
        .args(["build", "--release", "--locked", "--target", host])
        .env("CARGO_ENCODED_RUSTFLAGS", COUNTERS.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", &folder);
    terminal::run(&mut cargo)?;
    Ok(folder.join(host).join("release"))
}

/// Fuzzing target with its folders.
struct Target<'a> {
    name: &'a str,
    program: PathBuf,
    /// Corpus in the repository.
    corpus: PathBuf,
    /// Corpus that grows while fuzzing.
    growing: PathBuf,
    /// Inputs that violate a property.
    found: PathBuf,
}

impl<'a> Target<'a> {
    fn new(workspace: &Workspace, programs: &Path, name: &'a str) -> Result<Self> {
        let target = Self {
            name,
            program: programs.join(name),
            corpus: workspace.root.join("fuzz/corpus").join(name),
            growing: workspace.target.join("fuzz/corpus").join(name),
            found: workspace.target.join("fuzz/found").join(name),
        };
        for folder in [&target.corpus, &target.growing, &target.found] {
            fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
        }
        Ok(target)
    }

    fn fuzz(&self, seconds: u64) -> Result<Outcome> {
        let output = Command::new(&self.program)
            .args([&self.growing, &self.corpus])
            .args(LIMITS)
            .args(["-print_final_stats=1", &format!("-max_total_time={seconds}")])
            .arg(format!("-artifact_prefix={}/", self.found.display()))
            .output()
            .with_context(|| format!("{}", self.program.display()))?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let last: Vec<&str> = stderr.lines().rev().take(40).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            bail!("{}: a property does not hold\n{}", self.name, last.join("\n"));
        }
        let number = |after: &str| {
            let rest = stderr.rsplit_once(after)?.1.trim_start();
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            rest[..digits].parse().ok()
        };
        let missing = || format!("{}: libFuzzer does not say what it did", self.name);
        Ok(Outcome {
            name: self.name.to_owned(),
            executions: number("stat::number_of_executed_units:").with_context(missing)?,
            edges: number(" cov: ").with_context(missing)?,
            features: number(" ft: ").with_context(missing)?,
            entries: fs::read_dir(&self.corpus)?.count(),
        })
    }

    /// Adds the smallest inputs that reach all new coverage to the repository's corpus.
    fn keep(&self) -> Result<()> {
        let mut merge = Command::new(&self.program);
        merge
            .args(["-set_cover_merge=1", "-max_len=512"])
            .args([&self.corpus, &self.growing]);
        terminal::run(&mut merge)
    }
}

#[allow(clippy::print_stdout, reason = "the table is the task's output")]
fn table(outcomes: &[Outcome], seconds: u64) {
    println!("| target | executions | edges | features | corpus | seconds |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for Outcome {
        name,
        executions,
        edges,
        features,
        entries,
    } in outcomes
    {
        println!("| {name} | {executions} | {edges} | {features} | {entries} | {seconds} |");
    }
}
