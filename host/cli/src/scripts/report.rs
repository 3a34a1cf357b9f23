//! How it stands with the scripts, in words, as a table and as JSON.

use std::{fmt::Write, path::Path};

use serde_json::{Value, json};
use xenplug_control::{Fallback, Settings, Status};

use super::{
    folder::{Change, Place, State},
    name::Name,
};

/// What a change of a script's place is called.
pub(super) fn words(change: Change, name: &Name) -> String {
    match change {
        Change::Installed { saved: false, .. } => "a stand-in is in place; there was no original".to_owned(),
        Change::Installed { aside, .. } => {
            let mut text = format!("a stand-in is in place; the original is {name}.xenplug-original");
            if aside {
                text += &format!(", and the earlier one {name}.xenplug-old");
            }
            text
        }
        Change::Renewed => "the stand-in was renewed".to_owned(),
        Change::StandsIn => "a stand-in is in place already".to_owned(),
        Change::Restored => "the original is back".to_owned(),
        Change::Removed => "the stand-in is removed; there was no original".to_owned(),
        Change::SetAside => format!(
            "another script has come into its place, and stays; the original that was saved is {name}.xenplug-old now"
        ),
        Change::StandsAlone => "there is no stand-in".to_owned(),
    }
}

/// How it stands.
pub(super) struct Report<'a> {
    pub(super) scripts: Vec<(Place, Name)>,
    /// Those that stay the originals, and why.
    pub(super) staying: Vec<(&'static str, &'static str)>,
    pub(super) folder: &'a Path,
    pub(super) program: &'a Path,
    /// Why the program cannot stand in.
    pub(super) unusable: Option<super::Error>,
    pub(super) daemon: Result<Status, xenplug_control::Error>,
    pub(super) settings: &'a Settings,
}

impl Report<'_> {
    /// For programs.
    pub(super) fn json(&self) -> Value {
        let scripts = self.scripts.iter().map(|(place, name)| {
            json!({
                "name": name.as_str(),
                "state": place.state.name(),
                "original": place.original,
                "leads_to": place.leads_to,
                "configured": self.settings.scripts.contains(name.as_str()),
            })
        });
        json!({
            "folder": self.folder,
            "scripts": scripts.collect::<Vec<_>>(),
            "staying": self
                .staying
                .iter()
                .map(|(name, why)| json!({ "name": name, "why": why }))
                .collect::<Vec<_>>(),
            "stand_in": {
                "program": self.program,
                "usable": self.unusable.is_none(),
                "error": self.unusable.as_ref().map(ToString::to_string),
            },
            "daemon": {
                "answers": self.daemon.is_ok(),
                "mode": self.daemon.as_ref().ok().map(|status| &status.mode),
                "error": self.daemon.as_ref().err().map(ToString::to_string),
            },
            "fallback": match self.settings.fallback {
                Fallback::Fail => "fail",
                Fallback::Original => "original",
            },
        })
    }

    /// For people.
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
        for (place, name) in &self.scripts {
            line(name.as_str(), place.state.name(), &self.original(place));
        }
        if self.scripts.is_empty() {
            let _ = writeln!(
                text,
                "(none has a stand-in, and the configuration's plugins stand in for none)"
            );
        }
        for (name, why) in &self.staying {
            let _ = writeln!(text, "{name} stays the original: {why}");
        }
        let _ = writeln!(text, "\nin {}", self.folder.display());
        let _ = match &self.unusable {
            None => writeln!(text, "stand-in: {}", self.program.display()),
            Some(error) => writeln!(text, "stand-in: {error}"),
        };
        let _ = match &self.daemon {
            Ok(status) if status.mode == "dom0" => writeln!(text, "xenplugd answers"),
            Ok(status) => writeln!(
                text,
                "xenplugd answers, but in mode {}: it does not serve scripts",
                status.mode
            ),
            Err(error) => writeln!(text, "{error}"),
        };
        let _ = writeln!(
            text,
            "while it is away, {}",
            match self.settings.fallback {
                Fallback::Fail => "a script fails",
                Fallback::Original => "the original is run",
            }
        );
        text
    }

    fn original(&self, place: &Place) -> String {
        let mut text = place
            .original
            .as_ref()
            .map_or("-".to_owned(), |path| path.display().to_string());
        if let Some(target) = &place.leads_to {
            text += &format!(", a link to {}", target.display());
        }
        text += match place.state {
            State::Changed => "; it has replaced the stand-in: install takes it as the original",
            State::Outdated => "; the stand-in is another than would be put there now: install renews it",
            _ => "",
        };
        text
    }
}
