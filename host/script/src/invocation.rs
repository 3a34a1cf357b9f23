//! Parsing of the script's arguments and environment, as the originals do it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use xenplug_control::script::{Call, PARAMETER_MAX, PARAMETERS, ScriptAction, is_parameter, script_of_saved};

/// Script that only runs another one.
const DISPATCHER: &str = "vif-setup";
/// Script that it runs by default.
const DISPATCHED: &str = "vif-bridge";

/// Error of an invocation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("it replaces a script and is not run by itself")]
    Direct,
    #[error("{} has a name that is not UTF-8", .0.display())]
    Name(PathBuf),
    #[error("{} is saved as an original and is a shim itself", .0.display())]
    Loop(PathBuf),
    #[error("script is {}, which runs what script says", .0.display())]
    Itself(PathBuf),
    #[error("no action: add, remove, online or offline")]
    NoAction,
    #[error("unknown action {0:?}: not add, remove, online or offline")]
    ScriptAction(String),
    #[error("unknown interface type {0:?}: not vif or tap")]
    Interface(String),
    #[error("XENBUS_PATH is not set or not UTF-8")]
    NoDevice,
    #[error("neither INTERFACE, such as vif3.0-emu, nor XENBUS_PATH is set")]
    NoTap,
    #[error("{0} is not a line of at most {PARAMETER_MAX} bytes")]
    Parameter(&'static str),
}

/// Parsed invocation.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Invocation {
    Help,
    Version,
    Run(Run),
}

/// Run as a script.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Path of the script's file.
    pub(crate) script: PathBuf,
    /// Arguments of the script.
    pub(crate) arguments: Vec<OsString>,
    pub(crate) task: Task,
}

/// Task of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Do nothing, as the original.
    Nothing,
    /// Become another script with these arguments.
    Become(PathBuf, Vec<OsString>),
    /// Call the daemon.
    Call(Call),
}

impl Invocation {
    /// Parses the arguments after the program's name, and the environment.
    pub(crate) fn of(
        arguments: impl Iterator<Item = OsString>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let mut arguments = arguments;
        let script = match arguments.next() {
            None => return Err(Error::Direct),
            Some(word) if word == "--help" || word == "-h" => return Ok(Self::Help),
            Some(word) if word == "--version" || word == "-V" => return Ok(Self::Version),
            // The kernel passes a path.
            Some(word) if !word.as_encoded_bytes().contains(&b'/') => return Err(Error::Direct),
            Some(path) => PathBuf::from(path),
        };
        if script_of_saved(&script).is_some() {
            return Err(Error::Loop(script));
        }
        let arguments: Vec<OsString> = arguments.collect();
        let task = match script.file_name().is_some_and(|name| name == DISPATCHER) {
            true => dispatch(&script, &arguments, environment)?,
            false => task(&script, &arguments, environment)?,
        };
        Ok(Self::Run(Run {
            script,
            arguments,
            task,
        }))
    }
}

/// Does as vif-setup: becomes the script that `$script` names, with the words after the name in `$script` before its own
/// arguments.
fn dispatch(
    script: &Path,
    arguments: &[OsString],
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Task, Error> {
    let named = environment("script").unwrap_or_default();
    let named = named.into_string().map_err(|named| Error::Name(named.into()))?;
    let mut words = named.split_ascii_whitespace();
    let other = words.next().unwrap_or(DISPATCHED);
    // A name without a folder is a script of the same folder.
    let other = match other.contains('/') {
        true => PathBuf::from(other),
        false => script.with_file_name(other),
    };
    // The original would run itself for ever.
    if other.file_name().is_some_and(|name| name == DISPATCHER) {
        return Err(Error::Itself(other));
    }
    let arguments = words.map(OsString::from).chain(arguments.iter().cloned());
    Ok(Task::Become(other, arguments.collect()))
}

fn task(script: &Path, arguments: &[OsString], environment: impl Fn(&str) -> Option<OsString>) -> Result<Task, Error> {
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
        "add" => (ScriptAction::Add, false),
        "remove" => (ScriptAction::Remove, false),
        "online" => (ScriptAction::Add, true),
        "offline" => (ScriptAction::Remove, true),
        _ => return Err(Error::ScriptAction(command)),
    };
    // An empty value counts as not set: `${netdev:-eth0}`, `[ -z "$bridge" ]`.
    let variable = |name: &str| {
        let mut given =
            words().filter_map(|word| Some(unquoted(word.strip_prefix(name)?.strip_prefix('=')?).to_owned()));
        let set = given.next_back().or_else(|| environment(name)?.into_string().ok());
        set.filter(|value| !value.is_empty())
    };
    let interface = variable("type_if").unwrap_or_else(|| "vif".to_owned());
    // An emulated vif has two links: netback's comes `online`, QEMU's tap is `add`ed. The script runs for both and ignores
    // the other one's actions (vif-common.sh).
    let emulated = match &*interface {
        "tap" if of_links => return Ok(Task::Nothing),
        "tap" => true,
        "vif" => false,
        _ => return Err(Error::Interface(interface)),
    };
    let path = variable("XENBUS_PATH");
    let backend = match emulated {
        true => variable("INTERFACE")
            .as_deref()
            .and_then(vif_of_tap)
            .or(path)
            .ok_or(Error::NoTap)?,
        false => path.ok_or(Error::NoDevice)?,
    };
    let is_vif = backend.rsplit('/').nth(2) == Some("vif");
    match (is_vif, of_links || emulated) {
        (true, false) => return Ok(Task::Nothing),
        // Only links come online (block-common.sh).
        (false, true) => return Err(Error::ScriptAction(command)),
        _ => {}
    }
    let mut parameters = BTreeMap::new();
    for name in PARAMETERS {
        match variable(name) {
            Some(value) if is_parameter(name, &value) => _ = parameters.insert(name.to_owned(), value),
            Some(_) => return Err(Error::Parameter(name)),
            None => {}
        }
    }
    Ok(Task::Call(Call {
        script: name.to_owned(),
        action,
        backend,
        emulated,
        parameters,
    }))
}

/// Removes the quotes around a value, as the shell that evaluates an argument does.
fn unquoted(value: &str) -> &str {
    let within = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(value)
}

/// Returns the directory of the vif that a tap belongs to, from the tap's name, `vif3.0-emu` in libxl's QEMU arguments. It is
/// the own domain's (vif-common.sh assumes domain 0).
fn vif_of_tap(link: &str) -> Option<String> {
    let (domain, devid) = link.strip_prefix("vif")?.strip_suffix("-emu")?.split_once('.')?;
    Some(format!("backend/vif/{domain}/{devid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: &str = "backend/vbd/3/51712";
    const VIF: &str = "/local/domain/0/backend/vif/3/0";

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

    fn calls(script: &str, action: ScriptAction, backend: &str) -> Task {
        Task::Call(Call {
            script: script.to_owned(),
            action,
            backend: backend.to_owned(),
            emulated: false,
            parameters: BTreeMap::new(),
        })
    }

    #[test]
    fn arguments_of_libxl_and_udev_become_a_call() {
        let (add, remove) = (ScriptAction::Add, ScriptAction::Remove);
        for (line, backend, expected) in [
            ("/etc/xen/scripts/block add", DISK, calls("block", add, DISK)),
            ("/etc/xen/scripts/block remove", DISK, calls("block", remove, DISK)),
            ("./block-own add", DISK, calls("block-own", add, DISK)),
            ("/s/vif-bridge online type_if=vif", VIF, calls("vif-bridge", add, VIF)),
            (
                "/s/vif-bridge type_if=vif offline",
                VIF,
                calls("vif-bridge", remove, VIF),
            ),
            ("/s/vif-bridge online", VIF, calls("vif-bridge", add, VIF)),
            // Actions of the vif's other link.
            ("/s/vif-bridge add type_if=vif", VIF, Task::Nothing),
            ("/s/vif-bridge remove", VIF, Task::Nothing),
            ("/s/vif-bridge online type_if=tap", VIF, Task::Nothing),
        ] {
            assert_eq!(task(line, backend), expected, "{line}");
        }
    }

    fn call(line: &str, environment: &[(&str, &str)]) -> Call {
        match invocation(line, environment) {
            Ok(Invocation::Run(Run {
                task: Task::Call(call), ..
            })) => call,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn tap_is_found_by_its_name_or_its_vifs_directory() {
        let libxl = [("XENBUS_PATH", "backend/vif/3/0"), ("INTERFACE", "vif3.0-emu")];
        // udev knows no XENBUS_PATH; the environment may name the type, too.
        let udev = [("INTERFACE", "vif3.0-emu")];
        let environment = [("type_if", "tap"), ("INTERFACE", "vif3.0-emu")];
        let elsewhere = [
            ("XENBUS_PATH", "/local/domain/0/backend/vif/3/0"),
            ("INTERFACE", "web-emu"),
        ];
        for (line, environment, action, backend) in [
            (
                "/s/vif-bridge add type_if=tap",
                &libxl[..],
                ScriptAction::Add,
                "backend/vif/3/0",
            ),
            (
                "/s/vif-bridge type_if=tap remove",
                &libxl,
                ScriptAction::Remove,
                "backend/vif/3/0",
            ),
            (
                "/s/vif-bridge add type_if=tap",
                &udev,
                ScriptAction::Add,
                "backend/vif/3/0",
            ),
            ("/s/vif-bridge add", &environment, ScriptAction::Add, "backend/vif/3/0"),
            (
                "/s/vif-bridge add type_if=tap",
                &elsewhere,
                ScriptAction::Add,
                "/local/domain/0/backend/vif/3/0",
            ),
        ] {
            let call = call(line, environment);
            assert!(call.emulated, "{line}");
            assert_eq!((call.action, &*call.backend), (action, backend), "{line}");
        }
        assert_eq!(invocation("/s/vif-bridge add type_if=tap", &[]), Err(Error::NoTap));
    }

    #[test]
    fn argument_overrides_environment_and_empty_is_unset() {
        let parameters_of = |line: &str, more: &[(&str, &str)]| {
            let mut environment = vec![("XENBUS_PATH", VIF)];
            environment.extend(more);
            let parameters = call(line, &environment).parameters;
            let mut words: Vec<String> = parameters
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect();
            words.sort();
            words.join(" ")
        };
        for (line, environment, expected) in [
            ("/s/vif-route online", &[][..], ""),
            // libxl's environment for a vif without `gatewaydev`.
            ("/s/vif-route online type_if=vif", &[("netdev", "")], ""),
            ("/s/vif-route online", &[("netdev", "eth1")], "netdev=eth1"),
            ("/s/vif-route netdev=eth2 online", &[("netdev", "eth1")], "netdev=eth2"),
            ("/s/vif-route online netdev=a netdev=b", &[], "netdev=b"),
            ("/s/vif-route online netdev=", &[("netdev", "eth1")], ""),
            (
                "/s/vif-nat online dhcp=no",
                &[("dhcp", "yes"), ("bridge", "br0")],
                "bridge=br0 dhcp=no",
            ),
            (
                "/s/vif-bridge online ip='10.0.0.1'",
                &[("ip", "10.0.0.9")],
                "ip=10.0.0.1",
            ),
            // The originals take these from the store alone, and ignore unknown names.
            (
                "/s/vif-bridge online vifname=web mtu=9",
                &[("mac", "x"), ("PATH", "/bin")],
                "",
            ),
        ] {
            assert_eq!(parameters_of(line, environment), expected, "{line} {environment:?}");
        }
        let long = "x".repeat(1025);
        for value in ["a\nb", &long] {
            let environment = [("XENBUS_PATH", VIF), ("netdev", value)];
            assert_eq!(
                invocation("/s/vif-route online", &environment),
                Err(Error::Parameter("netdev"))
            );
        }
        assert_eq!(
            call(
                "/s/vif-bridge online XENBUS_PATH=backend/vif/4/1",
                &[("XENBUS_PATH", VIF)]
            )
            .backend,
            "backend/vif/4/1"
        );
    }

    #[test]
    fn vif_setup_becomes_the_named_script_or_vif_bridge() {
        for (script, expected) in [
            (None, "/s/vif-bridge add type_if=tap"),
            (Some(""), "/s/vif-bridge add type_if=tap"),
            (Some("/s/vif-route"), "/s/vif-route add type_if=tap"),
            (Some("/own/vif-mine"), "/own/vif-mine add type_if=tap"),
            (Some("vif-nat"), "/s/vif-nat add type_if=tap"),
            (
                Some("/s/vif-route netdev=eth1"),
                "/s/vif-route netdev=eth1 add type_if=tap",
            ),
        ] {
            let environment: Vec<_> = script.map(|script| ("script", script)).into_iter().collect();
            let Ok(Invocation::Run(run)) = invocation("/s/vif-setup add type_if=tap", &environment) else {
                panic!("{script:?}");
            };
            let words: Vec<_> = expected.split(' ').map(OsString::from).collect();
            assert_eq!(
                run.task,
                Task::Become(words[0].clone().into(), words[1..].to_vec()),
                "{script:?}"
            );
        }
        assert_eq!(
            invocation("/s/vif-setup online", &[("script", "/s/vif-setup")]),
            Err(Error::Itself("/s/vif-setup".into()))
        );
    }

    #[test]
    fn arguments_are_kept_for_the_original() {
        let Ok(Invocation::Run(run)) = invocation("/s/block add a=b c", &[("XENBUS_PATH", DISK)]) else {
            panic!("it is a script's");
        };
        assert_eq!(
            (run.script.to_str(), &*run.arguments.join(" ".as_ref())),
            (Some("/s/block"), "add a=b c".as_ref())
        );
    }

    #[test]
    fn invalid_invocation_is_refused() {
        let device = &[("XENBUS_PATH", DISK)][..];
        for (line, environment, error) in [
            ("", device, Error::Direct),
            ("add", device, Error::Direct),
            ("/s/block", device, Error::NoAction),
            ("/s/block a=b", device, Error::NoAction),
            ("/s/block up", device, Error::ScriptAction("up".into())),
            ("/s/block online", device, Error::ScriptAction("online".into())),
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
