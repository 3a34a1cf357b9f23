//! What the script is asked to do: its arguments and environment, understood as the originals do.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use xenplug_control::script::{Action, Call, script_of_saved};

/// Why an invocation is none of a script.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("it stands in for a script, and is not run by itself")]
    Direct,
    #[error("{} has no name that is text", .0.display())]
    Name(PathBuf),
    #[error("{} is to be an original, and is a stand-in itself", .0.display())]
    Loop(PathBuf),
    #[error("no action: add, remove, online or offline")]
    NoAction,
    #[error("unknown action {0:?}: not add, remove, online or offline")]
    Action(String),
    #[error("unknown interface type {0:?}: not vif or tap")]
    Interface(String),
    #[error("XENBUS_PATH is not set, or no text: which device?")]
    NoDevice,
}

/// How the program was started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Help,
    Version,
    Run(Run),
}

/// In the place of a script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The stand-in's path.
    pub(crate) script: PathBuf,
    /// The script's arguments.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) task: Task,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Nothing: a script does nothing then, either.
    Nothing,
    /// What only the original can do.
    Original,
    /// What the daemon is asked to do.
    Ask(Call),
}

impl Invocation {
    /// From the arguments after the program's own name, and the environment.
    pub(crate) fn of(
        arguments: impl Iterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let mut arguments = arguments;
        let script = match arguments.next() {
            None => return Err(Error::Direct),
            Some(word) if word == "--help" || word == "-h" => return Ok(Self::Help),
            Some(word) if word == "--version" || word == "-V" => return Ok(Self::Version),
            // The kernel hands on a path.
            Some(word) if !word.as_encoded_bytes().contains(&b'/') => return Err(Error::Direct),
            Some(path) => PathBuf::from(path),
        };
        if script_of_saved(&script).is_some() {
            return Err(Error::Loop(script));
        }
        let arguments: Vec<OsString> = arguments.collect();
        let task = task(&script, &arguments, environment)?;
        Ok(Self::Run(Run {
            script,
            arguments,
            task,
        }))
    }
}

fn task(script: &Path, arguments: &[OsString], environment: impl Fn(&str) -> Option<OsString>) -> Result<Task, Error> {
    let text = |name| environment(name).and_then(|value| value.into_string().ok());
    let name = script
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| Error::Name(script.to_owned()))?;
    // The first word without a `=` is the command, the others set variables, and they win over the environment
    // (xen-script-common.sh, `findCommand` and `evalVariables`).
    let words = || arguments.iter().map(|argument| argument.to_string_lossy());
    let command = words()
        .find(|word| !word.contains('='))
        .ok_or(Error::NoAction)?
        .into_owned();
    let (action, of_links) = match &*command {
        "add" => (Action::Add, false),
        "remove" => (Action::Remove, false),
        "online" => (Action::Add, true),
        "offline" => (Action::Remove, true),
        _ => return Err(Error::Action(command)),
    };
    let interface = words()
        .filter_map(|word| word.strip_prefix("type_if=").map(str::to_owned))
        .next_back()
        .or_else(|| text("type_if"))
        .unwrap_or_else(|| "vif".to_owned());
    // A card has two links if it is emulated: netback's comes `online`, QEMU's tap is `add`ed; a script is run for
    // both, and ignores what is meant for the other (vif-common.sh).
    match &*interface {
        "tap" if of_links => return Ok(Task::Nothing),
        "tap" => return Ok(Task::Original),
        "vif" => {}
        _ => return Err(Error::Interface(interface)),
    }
    let backend = text("XENBUS_PATH")
        .filter(|path| !path.is_empty())
        .ok_or(Error::NoDevice)?;
    let is_card = backend.rsplit('/').nth(2) == Some("vif");
    match (is_card, of_links) {
        (true, false) => return Ok(Task::Nothing),
        // Only links come online (block-common.sh).
        (false, true) => return Err(Error::Action(command)),
        _ => {}
    }
    Ok(Task::Ask(Call {
        script: name.to_owned(),
        action,
        backend,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = "backend/vbd/3/51712";
    const CARD: &str = "/local/domain/0/backend/vif/3/0";

    fn invocation(line: &str, environment: &[(&str, &str)]) -> Result<Invocation, Error> {
        Invocation::of(line.split_whitespace().map(OsString::from), |name| {
            environment
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.into())
        })
    }

    fn task(line: &str, backend: &str) -> Task {
        match invocation(line, &[("XENBUS_PATH", backend)]) {
            Ok(Invocation::Run(run)) => run.task,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn asks(script: &str, action: Action, backend: &str) -> Task {
        Task::Ask(Call {
            script: script.to_owned(),
            action,
            backend: backend.to_owned(),
        })
    }

    #[test]
    fn what_libxl_and_udev_run_asks_for_a_device() {
        let (add, remove) = (Action::Add, Action::Remove);
        for (line, backend, expected) in [
            ("/etc/xen/scripts/block add", DISK, asks("block", add, DISK)),
            ("/etc/xen/scripts/block remove", DISK, asks("block", remove, DISK)),
            ("./block-own add", DISK, asks("block-own", add, DISK)),
            ("/s/vif-bridge online type_if=vif", CARD, asks("vif-bridge", add, CARD)),
            (
                "/s/vif-bridge type_if=vif offline",
                CARD,
                asks("vif-bridge", remove, CARD),
            ),
            ("/s/vif-bridge online", CARD, asks("vif-bridge", add, CARD)),
            // What is meant for the other link of a card.
            ("/s/vif-bridge add type_if=vif", CARD, Task::Nothing),
            ("/s/vif-bridge remove", CARD, Task::Nothing),
            ("/s/vif-bridge online type_if=tap", CARD, Task::Nothing),
            ("/s/vif-bridge add type_if=tap", CARD, Task::Original),
            ("/s/vif-bridge type_if=tap remove", CARD, Task::Original),
        ] {
            assert_eq!(task(line, backend), expected, "{line}");
        }
        // QEMU's tap comes from udev without XENBUS_PATH; the environment may name the type, too.
        for (line, environment) in [
            ("/s/vif add type_if=tap", &[][..]),
            ("/s/vif add", &[("type_if", "tap")]),
        ] {
            let Ok(Invocation::Run(run)) = invocation(line, environment) else {
                panic!("{line}");
            };
            assert_eq!(run.task, Task::Original);
        }
    }

    #[test]
    fn arguments_are_kept_for_the_original_as_they_are() {
        let Ok(Invocation::Run(run)) = invocation("/s/block add a=b c", &[("XENBUS_PATH", DISK)]) else {
            panic!("it is a script's");
        };
        assert_eq!(
            (run.script.to_str(), &*run.arguments.join(" ".as_ref())),
            (Some("/s/block"), "add a=b c".as_ref())
        );
    }

    #[test]
    fn what_is_no_scripts_invocation_is_refused() {
        let device = &[("XENBUS_PATH", DISK)][..];
        for (line, environment, error) in [
            ("", device, Error::Direct),
            ("add", device, Error::Direct),
            ("/s/block", device, Error::NoAction),
            ("/s/block a=b", device, Error::NoAction),
            ("/s/block up", device, Error::Action("up".into())),
            ("/s/block online", device, Error::Action("online".into())),
            ("/s/vif add type_if=tun", device, Error::Interface("tun".into())),
            ("/s/block add", &[], Error::NoDevice),
            ("/s/block add", &[("XENBUS_PATH", "")], Error::NoDevice),
            (
                "/s/block.xenplug-original add",
                device,
                Error::Loop("/s/block.xenplug-original".into()),
            ),
        ] {
            assert_eq!(invocation(line, environment), Err(error), "{line}");
        }
        assert_eq!(invocation("--help", &[]), Ok(Invocation::Help));
        assert_eq!(invocation("-V", &[]), Ok(Invocation::Version));
    }
}
