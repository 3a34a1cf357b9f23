//! The test binaries, as cargo builds them, and the tests in them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    roots::{self, Release},
    terminal,
    workspace::Workspace,
};

/// One test binary.
pub(crate) struct Binary {
    /// The name of the target, such as `differential`, or of the library or program whose unit tests it has.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Its package's folder, where cargo would run it.
    pub(crate) folder: PathBuf,
}

impl Binary {
    /// A command that runs it as cargo would, in the root of a release.
    pub(crate) fn command(&self, workspace: &Workspace, release: Release) -> Result<Command> {
        let mut command = workspace.command_in(release, &self.program)?;
        workspace.with_parts(&mut command);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// The names of its tests.
    pub(crate) fn tests(&self, workspace: &Workspace) -> Result<Vec<String>> {
        let mut list = self.command(workspace, roots::PRIMARY)?;
        let said = terminal::read(list.args(["--list", "--format=terse"]))
            .with_context(|| self.program.display().to_string())?;
        let tests = said.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(tests.map(str::to_owned).collect())
    }
}

/// Builds all test binaries of the workspace.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<Binary>> {
    let mut cargo = workspace.test_command();
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let said = terminal::read(&mut cargo)?;
    let messages = said.lines().filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages.filter_map(|message| built(&message)).collect())
}

/// The test binary that one of cargo's messages is about, if it is about one.
fn built(message: &Value) -> Option<Binary> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Binary {
        name: message["target"]["name"].as_str()?.to_owned(),
        program: message["executable"].as_str()?.into(),
        folder: manifest.parent()?.to_owned(),
    })
}
