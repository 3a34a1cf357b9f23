//! What the daemon's configuration tells those who ask it: the scripts' stand-in, and the operator's command.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Where the configuration is, unless `XENPLUG_CONFIG` says otherwise.
const FILE: &str = "/etc/xenplug/xenplugd.toml";

/// Why nothing could be learnt from the configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// the file cannot be read
    #[error("{file}: {source}", file = .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// the file is not as the daemon wants it
    #[error("{file}:{line}: {message}", file = .file.display())]
    Parse {
        /// The file.
        file: PathBuf,
        /// Where in it.
        line: usize,
        /// Why, in one line.
        message: String,
    },
}

/// What the configuration tells those who ask the daemon. The daemon itself reads all of it, and more strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `driver-domain` or `dom0`, if it says so.
    pub mode: Option<String>,
    /// The control socket: `/run/xenplug/control.sock`.
    pub socket: PathBuf,
    /// What a script's stand-in does when the daemon is away: fail.
    pub fallback: Fallback,
    /// The scripts that the plugins stand in for.
    pub scripts: BTreeSet<String>,
}

/// What a script's stand-in does when the daemon is away.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// It fails, and says so in the store.
    #[default]
    Fail,
    /// It runs the original script in its place.
    Original,
}

impl Settings {
    /// Where the configuration is: `XENPLUG_CONFIG`, else `/etc/xenplug/xenplugd.toml`.
    pub fn file() -> PathBuf {
        env::var_os("XENPLUG_CONFIG").map_or_else(|| FILE.into(), PathBuf::from)
    }

    /// Reads the configuration. `None` if there is none.
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
        let written: Written = toml::from_str(text).map_err(|error| Error::Parse {
            file: file.to_owned(),
            line: 1 + error.span().map_or(0, |span| text[..span.start].matches('\n').count()),
            message: error.message().to_owned(),
        })?;
        let defaults = Self::default();
        Ok(Self {
            mode: written.mode,
            socket: written
                .paths
                .run
                .map_or(defaults.socket, |run| run.join("control.sock")),
            fallback: written.scripts.fallback,
            scripts: written.plugin.into_values().flat_map(|plugin| plugin.scripts).collect(),
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

/// The file as far as it is of use here.
#[derive(Deserialize)]
struct Written {
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
    fn what_is_needed_is_read_and_the_rest_left_to_the_daemon() {
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
    fn a_configuration_that_is_broken_is_told_with_its_line_in_one_line() {
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
