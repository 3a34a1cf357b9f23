//! Part of the daemon's configuration that the shim and the operator's command need.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Default path of the configuration.
const FILE: &str = "/etc/xenplug/xenplugd.toml";

/// Error of reading the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {file}", file = .file.display())]
    Read {
        /// Path of the file.
        file: PathBuf,
        /// Error of the read.
        source: io::Error,
    },
    /// The file is not valid.
    #[error("{file}:{line}: {message}", file = .file.display())]
    Parse {
        /// Path of the file.
        file: PathBuf,
        /// Line of the mistake.
        line: usize,
        /// Cause, in one line.
        message: String,
    },
}

/// Settings for clients of the daemon, which itself reads the whole file more strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `driver-domain` or `dom0`, if given.
    pub mode: Option<String>,
    /// Path of the control socket: `/run/xenplug/control.sock`.
    pub socket: PathBuf,
    /// Behaviour of the shim while the daemon is away. Default: fail.
    pub fallback: Fallback,
    /// Scripts that the plugins replace.
    pub scripts: BTreeSet<String>,
}

/// Behaviour of the shim while the daemon is away.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// Fail, and write the error to the store.
    #[default]
    Fail,
    /// Run the original script.
    Original,
}

impl Settings {
    /// Returns the path of the configuration: `XENPLUG_CONFIG`, else `/etc/xenplug/xenplugd.toml`.
    pub fn file() -> PathBuf {
        env::var_os("XENPLUG_CONFIG").map_or_else(|| FILE.into(), PathBuf::from)
    }

    /// Reads the configuration, or returns `None` if there is none.
    pub fn read(file: &Path) -> Result<Option<Self>, Error> {
        match fs::read_to_string(file) {
            Ok(text) => Self::parse(file, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Read {
                file: file.to_owned(),
                source,
            }),
        }
    }

    fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        let file_keys: File = toml::from_str(text).map_err(|error| Error::Parse {
            file: file.to_owned(),
            line: 1 + error.span().map_or(0, |span| text[..span.start].matches('\n').count()),
            message: error.message().to_owned(),
        })?;
        let defaults = Self::default();
        Ok(Self {
            mode: file_keys.mode,
            socket: file_keys
                .paths
                .run
                .map_or(defaults.socket, |run| run.join("control.sock")),
            fallback: file_keys.scripts.fallback,
            scripts: file_keys
                .plugin
                .into_values()
                .flat_map(|plugin| plugin.scripts)
                .collect(),
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: None,
            socket: crate::DEFAULT_SOCKET.into(),
            fallback: Fallback::Fail,
            scripts: BTreeSet::new(),
        }
    }
}

/// Keys that the settings are taken from.
#[derive(Deserialize)]
struct File {
    mode: Option<String>,
    #[serde(default)]
    paths: Paths,
    #[serde(default)]
    scripts: Scripts,
    #[serde(default)]
    plugin: BTreeMap<String, Plugin>,
}

#[derive(Deserialize, Default)]
struct Paths {
    run: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
struct Scripts {
    #[serde(default)]
    fallback: Fallback,
}

#[derive(Deserialize)]
struct Plugin {
    #[serde(default)]
    scripts: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, Error> {
        Settings::parse(Path::new("a.toml"), text)
    }

    #[test]
    fn settings_ignore_keys_of_the_daemon() {
        let text = r#"
            mode = "dom0"
            future = 1
            [paths]
            run = "/run/other"
            cache = 7
            [scripts]
            fallback = "original"
            [plugin.phy]
            component = "phy.wasm"
            scripts = ["block"]
            [plugin.phy.grant]
            loop = true
            [plugin.vif]
            scripts = ["vif-bridge", "vif-own"]
            [plugin.silent]
        "#;
        assert_eq!(
            parse(text).expect("settings"),
            Settings {
                mode: Some("dom0".into()),
                socket: "/run/other/control.sock".into(),
                fallback: Fallback::Original,
                scripts: ["block", "vif-bridge", "vif-own"].map(str::to_owned).into(),
            }
        );
        assert_eq!(parse("").expect("settings"), Settings::default());
    }

    #[test]
    fn broken_configuration_is_reported_with_its_line() {
        for text in [
            "mode = \"dom0\"\n\n[scripts]\nfallback = \"both\"\n",
            "a = 1\nb = 2\n\n= 3\n",
        ] {
            let error = parse(text).expect_err("it is broken").to_string();
            assert!(error.starts_with("a.toml:4: ") && !error.contains('\n'), "{error}");
        }
        let directory = Path::new("/");
        assert!(matches!(Settings::read(directory), Err(Error::Read { .. })));
        assert!(matches!(Settings::read(Path::new("/nowhere")), Ok(None)));
    }
}
