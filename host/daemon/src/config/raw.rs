//! The configuration file as it is written.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use toml::Spanned as Placed;
use xenplug_system::grant::Access;
use xenplug_xenbus::Mode as DaemonMode;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Config {
    pub(super) mode: Mode,
    #[serde(default)]
    pub(super) paths: Paths,
    #[serde(default)]
    #[expect(dead_code, reason = "the shim reads it; the daemon only checks it")]
    scripts: Scripts,
    #[serde(default)]
    pub(super) backoff: Backoff,
    #[serde(default)]
    pub(super) plugin: BTreeMap<String, Plugin>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    DriverDomain,
    Dom0,
}

impl From<Mode> for DaemonMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::DriverDomain => Self::DriverDomain,
            Mode::Dom0 => Self::Dom0,
        }
    }
}

/// Settings of the shim.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Scripts {
    #[serde(default)]
    #[expect(dead_code, reason = "see above")]
    fallback: Fallback,
}

/// The shim's action for a device that the daemon does not serve.
#[derive(Clone, Copy, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum Fallback {
    /// Fails.
    #[default]
    Fail,
    /// Runs the original script.
    Original,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Paths {
    pub(super) plugins: Option<PathBuf>,
    pub(super) cache: Option<PathBuf>,
    pub(super) run: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Backoff {
    pub(super) first: Option<Placed<String>>,
    pub(super) longest: Option<Placed<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Plugin {
    pub(super) component: Placed<PathBuf>,
    pub(super) kinds: Placed<Vec<String>>,
    pub(super) scripts: Placed<Vec<String>>,
    #[serde(default)]
    pub(super) grant: Grant,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) config: toml::Table,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Grant {
    pub(super) block: Option<Vec<PathRule>>,
    pub(super) r#loop: Option<Placed<bool>>,
    pub(super) bridges: Option<Vec<String>>,
    pub(super) routes: Option<Placed<Vec<String>>>,
    pub(super) uplinks: Option<Vec<String>>,
    #[serde(default)]
    pub(super) firewall: bool,
    pub(super) process: Option<Vec<Helper>>,
    #[serde(default)]
    pub(super) guest: bool,
    pub(super) hooks: Option<Placed<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PathRule {
    pub(super) path: Placed<PathBuf>,
    pub(super) access: Access,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Helper {
    pub(super) name: String,
    pub(super) path: Placed<PathBuf>,
    #[serde(default)]
    pub(super) args: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Limits {
    pub(super) memory: Option<Placed<String>>,
    pub(super) deadline: Option<Placed<String>>,
    pub(super) calls: Option<u32>,
    pub(super) log_lines: Option<u32>,
}
