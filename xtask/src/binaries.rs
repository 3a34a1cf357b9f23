//! Test binaries, as cargo builds them, and their tests.

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

/// Test binary.
pub(crate) struct Binary {
    /// Name of the target, such as `differential`, or of the library or program with the unit tests.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Folder of the package, in which cargo runs the binary.
    pub(crate) folder: PathBuf,
}

impl Binary {
    /// Returns a command that runs the binary as cargo does, in the root of a release.
    pub(crate) fn command(&self, workspace: &Workspace, release: Release) -> Result<Command> {
        let mut command = workspace.command_in(release, &self.program)?;
        workspace.with_parts(&mut command);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .stdin(Stdio::null());
        Ok(command)
    }

    /// Lists the names of the binary's tests.
    pub(crate) fn tests(&self, workspace: &Workspace) -> Result<Vec<String>> {
        let mut list = self.command(workspace, roots::PRIMARY)?;
        let output = terminal::read(list.args(["--list", "--format=terse"]))
            .with_context(|| self.program.display().to_string())?;
        let tests = output.lines().filter_map(|line| line.strip_suffix(": test"));
        Ok(tests.map(str::to_owned).collect())
    }
}

/// Builds all test binaries of the workspace.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<Binary>> {
    let mut cargo = workspace.test_command();
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let output = terminal::read(&mut cargo)?;
    let messages = output.lines().filter_map(|line| serde_json::from_str(line).ok());
    Ok(messages.filter_map(|message| built(&message)).collect())
}

/// Returns the test binary of a message from cargo, if the message reports one.
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
