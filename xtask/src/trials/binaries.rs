//! Test binaries that cargo builds, and their tests.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{terminal, workspace::Workspace};

/// One test binary.
pub(super) struct Binary {
    pub(super) program: PathBuf,
    /// Its package's folder, where cargo would run it.
    pub(super) folder: PathBuf,
    tests: Vec<String>,
}

/// All of them.
pub(super) struct Binaries(Vec<Binary>);

impl Binaries {
    /// Builds them, and asks each for its tests.
    pub(super) fn build(workspace: &Workspace) -> Result<Self> {
        let mut cargo = workspace.test_command();
        cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
        let stdout = terminal::read(&mut cargo)?;
        let binaries = stdout.lines().filter_map(|line| serde_json::from_str(line).ok());
        let binaries = binaries.filter_map(|message| built(&message));
        let listed = binaries.map(|(program, folder)| {
            let tests = list(workspace, &program, &folder)?;
            Ok(Binary { program, folder, tests })
        });
        listed.collect::<Result<_>>().map(Self)
    }

    /// The tests of a name, with their paths, wherever they are.
    pub(super) fn with(&self, name: &str) -> Vec<(&Binary, &str)> {
        let all = self
            .0
            .iter()
            .flat_map(|binary| binary.tests.iter().map(move |test| (binary, &**test)));
        all.filter(|(_, test)| test.rsplit("::").next() == Some(name)).collect()
    }
}

/// The program and the package's folder, if cargo's message is about a test binary.
fn built(message: &Value) -> Option<(PathBuf, PathBuf)> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some((message["executable"].as_str()?.into(), manifest.parent()?.to_owned()))
}

fn list(workspace: &Workspace, program: &Path, folder: &Path) -> Result<Vec<String>> {
    let mut command = Command::new(program);
    command
        .args(["--list", "--format=terse"])
        .current_dir(folder)
        .stdin(Stdio::null());
    let stdout =
        terminal::read(workspace.with_parts(&mut command)).with_context(|| format!("{}", program.display()))?;
    Ok(stdout
        .lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect())
}
