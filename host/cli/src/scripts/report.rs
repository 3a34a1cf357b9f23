//! Report of the scripts' states, as a table and as JSON.

use std::{fmt::Write, path::Path};

use serde_json::{Value, json};
use xenplug_control::{Fallback, Settings, Status, error_chain};

use super::{
    folder::{Change, ScriptSlot, State},
    name::Name,
};

/// Describes a change of a script.
pub(super) fn describe(change: Change, name: &Name) -> String {
    match change {
        Change::Installed { saved: false, .. } => "installed; there was no original".to_owned(),
        Change::Installed { aside, .. } => {
            let mut text = format!("installed; the original is {name}.xenplug-original");
            if aside {
                text += &format!(", and the earlier one {name}.xenplug-old");
            }
            text
        }
        Change::Renewed => "the shim was renewed".to_owned(),
        Change::AlreadyInstalled => "installed already".to_owned(),
        Change::Restored => "the original is restored".to_owned(),
        Change::Removed => "the shim is removed; there was no original".to_owned(),
        Change::SetAside => {
            format!("another script has replaced the shim and stays; the saved original is now {name}.xenplug-old")
        }
        Change::NotInstalled => "there is no shim".to_owned(),
    }
}

/// States of the scripts and of what the shims need.
pub(super) struct Report<'a> {
    pub(super) scripts: Vec<(ScriptSlot, Name)>,
    /// Scripts that are never replaced, with the reason.
    pub(super) unreplaced: Vec<(&'static str, &'static str)>,
    pub(super) folder: &'a Path,
    pub(super) program: &'a Path,
    /// Error of the shims' program.
    pub(super) unusable: Option<String>,
    pub(super) daemon: Result<Status, xenplug_control::Error>,
    pub(super) settings: &'a Settings,
}

impl Report<'_> {
    /// Formats the report as JSON.
    pub(super) fn json(&self) -> Value {
        let scripts = self.scripts.iter().map(|(slot, name)| {
            json!({
                "name": name.as_str(),
                "state": slot.state.name(),
                "original": slot.original,
                "link_target": slot.link_target,
                "configured": self.settings.scripts.contains(name.as_str()),
            })
        });
        json!({
            "folder": self.folder,
            "scripts": scripts.collect::<Vec<_>>(),
            "unreplaced": self
                .unreplaced
                .iter()
                .map(|(name, why)| json!({ "name": name, "why": why }))
                .collect::<Vec<_>>(),
            "shim": {
                "program": self.program,
                "usable": self.unusable.is_none(),
                "error": self.unusable,
            },
            "daemon": {
                "answers": self.daemon.is_ok(),
                "mode": self.daemon.as_ref().ok().map(|status| &status.mode),
                "error": self.daemon.as_ref().err().map(|error| error_chain(error)),
            },
            "fallback": match self.settings.fallback {
                Fallback::Fail => "fail",
                Fallback::Original => "original",
            },
        })
    }

    /// Formats the report as a table.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        let width = self
            .scripts
            .iter()
            .map(|(_, name)| name.as_str().len())
            .max()
            .unwrap_or(0)
            .max(6);
        // Writing to a string does not fail.
        let mut line = |first: &str, second: &str, third: &str| {
            let _ = writeln!(text, "{}", format!("{first:<width$}  {second:<8}  {third}").trim_end());
        };
        line("SCRIPT", "STATE", "ORIGINAL");
        for (slot, name) in &self.scripts {
            line(name.as_str(), slot.state.name(), &self.original(slot));
        }
        if self.scripts.is_empty() {
            let _ = writeln!(
                text,
                "(no script has a shim, and the configuration's plugins replace none)"
            );
        }
        for (name, why) in &self.unreplaced {
            let _ = writeln!(text, "{name} is not replaced: {why}");
        }
        let _ = writeln!(text, "\nin {}", self.folder.display());
        let _ = match &self.unusable {
            None => writeln!(text, "shim: {}", self.program.display()),
            Some(error) => writeln!(text, "shim: {error}"),
        };
        let _ = match &self.daemon {
            Ok(status) if status.mode == "dom0" => writeln!(text, "xenplugd answers"),
            Ok(status) => writeln!(
                text,
                "xenplugd answers, but in mode {}: it does not serve scripts",
                status.mode
            ),
            Err(error) => writeln!(text, "{}", error_chain(error)),
        };
        let _ = writeln!(
            text,
            "while it is away, {}",
            match self.settings.fallback {
                Fallback::Fail => "a script fails",
                Fallback::Original => "the original runs",
            }
        );
        text
    }

    fn original(&self, slot: &ScriptSlot) -> String {
        let mut text = slot
            .original
            .as_ref()
            .map_or("-".to_owned(), |path| path.display().to_string());
        if let Some(target) = &slot.link_target {
            text += &format!(", a link to {}", target.display());
        }
        text += match slot.state {
            State::Changed => "; it has replaced the shim: install takes it as the original",
            State::Outdated => "; the shim is outdated: install renews it",
            _ => "",
        };
        text
    }
}
