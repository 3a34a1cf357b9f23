//! Table of the misbehaving guests (plugins), with the grants and the expected end of each.

use std::{path::Path, time::Duration};

use xenplug_tests::harness::Config;

/// Deadline of a handler that waits or loops until it is stopped.
pub(crate) const DEADLINE: Duration = Duration::from_millis(500);

/// Deadline of the others, which reach their misbehaviour within it even on a loaded host.
const AMPLE: Duration = Duration::from_secs(10);

const LATE: &str = "took longer than its deadline of 500ms";

/// Name of the helper.
pub(crate) const HELPER: &str = "helper";

/// Name of the helper that can be turned on and off.
pub(crate) const SWITCH: &str = "switch";

/// Expected end of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    /// The daemon refuses to start, with these texts.
    Refused(&'static [&'static str]),
    /// The device gets `hotplug-status=error`, and `hotplug-error` has these texts after the plugin's name.
    Fails(&'static [&'static str]),
    /// The device connects. A test of its own checks the rest.
    Connects,
}

/// Grants of a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Grant {
    Nothing,
    /// The directory of images, and loop devices.
    Disks,
    /// Bridges, for a guest that serves vifs.
    Bridges,
    /// The helper [`HELPER`], a program among the images.
    Helper,
    /// The helper [`SWITCH`], likewise, which may be turned on and off.
    Switch,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    pub(crate) name: &'static str,
    pub(crate) grant: Grant,
    /// Further lines of the plugin's `limits`.
    limits: &'static str,
    pub(crate) fate: Fate,
}

impl Guest {
    /// Returns the deadline of the handler.
    pub(crate) fn deadline(&self) -> Duration {
        let late = match self.fate {
            Fate::Fails(words) | Fate::Refused(words) => words.contains(&LATE),
            Fate::Connects => self.name == "spin-in-disconnect",
        };
        if late { DEADLINE } else { AMPLE }
    }

    /// Returns the plugin's tables of the configuration. It serves a script with the plugin's name.
    pub(crate) fn tables(&self, images: &Path) -> String {
        let (kind, grant) = match self.grant {
            Grant::Nothing => ("vbd", String::new()),
            Grant::Disks => (
                "vbd",
                format!("block = [{{ path = {images:?}, access = \"rw\" }}]\nloop = true"),
            ),
            Grant::Bridges => ("vif", "bridges = [\"xenbr*\"]".to_owned()),
            Grant::Helper => {
                let path = images.join(HELPER);
                (
                    "vbd",
                    format!("process = [{{ name = {HELPER:?}, path = {path:?}, args = [] }}]"),
                )
            }
            Grant::Switch => {
                let path = images.join(SWITCH);
                let rule = |state| format!("{{ name = {SWITCH:?}, path = {path:?}, args = [{state:?}] }}");
                ("vbd", format!("process = [{}, {}]", rule("on"), rule("off")))
            }
        };
        format!(
            "\n[plugin.{name}]\ncomponent = \"guests/{name}.wasm\"\nkinds = [\"{kind}\"]\nscripts = [\"{name}\"]\n\
             [plugin.{name}.grant]\n{grant}\n[plugin.{name}.limits]\ndeadline = \"{deadline:?}\"\n{limits}\n",
            name = self.name,
            deadline = self.deadline(),
            limits = self.limits,
        )
    }
}

/// Adds these guests to a configuration with good plugins.
pub(crate) fn beside(config: Config, images: &Path, guests: impl IntoIterator<Item = Guest>) -> Config {
    guests
        .into_iter()
        .fold(config, |config, guest| config.with(&guest.tables(images)))
}

/// Finds a guest by name.
pub(crate) fn guest(name: &str) -> Guest {
    *GUESTS
        .iter()
        .find(|guest| guest.name == name)
        .expect("it is in the table")
}

const fn of(name: &'static str, grant: Grant, limits: &'static str, fate: Fate) -> Guest {
    Guest {
        name,
        grant,
        limits,
        fate,
    }
}

pub(crate) const GUESTS: &[Guest] = {
    use Fate::*;
    use Grant::*;
    const CRASHED: &str = "crashed";
    &[
        of("argument-not-utf8", Nothing, "", Fails(&[CRASHED, "utf-8"])),
        of("argument-out-of-bounds", Nothing, "", Fails(&[CRASHED])),
        of("argument-wraps-around", Nothing, "", Fails(&[CRASHED])),
        of("argument-wrong-case", Nothing, "", Fails(&[CRASHED])),
        of("control-characters-in-error", Nothing, "", Fails(&["params state = 4"])),
        of("control-characters-in-log", Nothing, "", Connects),
        of(
            "control-characters-in-node",
            Nothing,
            "",
            Fails(&["physical-device", "control characters"]),
        ),
        of("deep-recursion", Nothing, "", Fails(&[CRASHED])),
        of("denied", Disks, "", Connects),
        of("double-drop", Disks, "", Fails(&[CRASHED])),
        of("finds-marks", Nothing, "", Connects),
        of("foreign-handle", Disks, "", Fails(&[CRASHED])),
        of(
            "frontend-node",
            Nothing,
            "",
            Fails(&["publish state", "not the plugin's to write"]),
        ),
        of("handle-after-drop", Disks, "", Fails(&[CRASHED])),
        of(
            "handle-hoard",
            Disks,
            "",
            Fails(&["has more handles open than it may (256)"]),
        ),
        of(
            "host-call-flood",
            Nothing,
            "",
            Fails(&["made more host calls than it may (4096)"]),
        ),
        of("huge-argument", Disks, "", Fails(&[CRASHED, "too much data"])),
        of("huge-error", Nothing, "", Fails(&[CRASHED, "too much data"])),
        of("huge-list", Nothing, "", Fails(&[CRASHED, "too much data"])),
        of("huge-value", Nothing, "", Fails(&[CRASHED, "too much data"])),
        of("leaves-marks", Nothing, "", Fails(&[CRASHED])),
        of("log-flood", Nothing, "calls = 200000", Connects),
        of(
            "loop-hoard",
            Disks,
            "",
            Fails(&["acquired more than a device may hold (128)"]),
        ),
        of("memory-at-start", Nothing, "memory = \"2MiB\"", Refused(&["memory"])),
        of("memory-bomb", Nothing, "memory = \"2MiB\"", Fails(&[CRASHED, "memory"])),
        of("no-handler", Nothing, "", Refused(&["handler@0.1.0"])),
        of("path-in-node-name", Nothing, "", Fails(&["malformed name"])),
        of("realloc-out-of-bounds", Nothing, "", Fails(&[CRASHED])),
        of("recursion-through-host", Nothing, "", Fails(&[CRASHED])),
        of("remembers", Nothing, "", Connects),
        of(
            "reserved-node",
            Nothing,
            "",
            Fails(&["publish hotplug-status", "not the plugin's to write"]),
        ),
        of("result-list-overlaps", Nothing, "", Fails(&[CRASHED, "too much data"])),
        of("result-list-wraps-around", Nothing, "", Fails(&[CRASHED])),
        of("result-not-utf8", Nothing, "", Fails(&[CRASHED, "utf-8"])),
        of("result-out-of-bounds", Nothing, "", Fails(&[CRASHED])),
        of("result-wrong-case", Nothing, "", Fails(&[CRASHED])),
        of("spin-after-loop", Disks, "", Fails(&[LATE])),
        of("spin-at-start", Nothing, "", Refused(&[LATE])),
        of("spin-in-connect", Nothing, "", Fails(&[LATE])),
        of("spin-in-describe", Nothing, "", Refused(&[LATE])),
        of("spin-in-disconnect", Nothing, "", Connects),
        of("spin-in-post-return", Nothing, "", Fails(&[LATE])),
        of("spin-in-realloc", Nothing, "", Fails(&[LATE])),
        of("stack-overflow", Nothing, "", Fails(&[CRASHED, "stack"])),
        of("table-bomb", Nothing, "", Fails(&[LATE])),
        of("trap-after-apply", Switch, "", Fails(&[CRASHED])),
        of("trap-after-bridge", Bridges, "", Fails(&[CRASHED])),
        of("trap-after-helper", Helper, "", Fails(&[CRASHED])),
        of("trap-after-loop", Disks, "", Fails(&[CRASHED])),
        of("trap-at-start", Nothing, "", Refused(&[CRASHED])),
        of("trap-in-connect", Nothing, "", Fails(&[CRASHED])),
        of("trap-in-disconnect", Nothing, "", Connects),
        of("trap-in-post-return", Nothing, "", Fails(&[CRASHED])),
        of(
            "ungranted-import",
            Nothing,
            "",
            Refused(&["xen:hotplug/process", "process = ["]),
        ),
        of("wait-past-deadline", Disks, "", Fails(&[LATE])),
    ]
};
