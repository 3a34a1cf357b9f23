//! What the operator does about a plugin.

use clap::Subcommand;
use xenplug_control::Client;

/// What to do about a plugin.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Ends a plugin's quarantine: it runs again, as if it had never failed.
    ///
    /// Devices that have failed meanwhile stay so until they are attached again, or their hotplug-status is emptied.
    Release {
        /// The plugin's name in the configuration.
        name: String,
    },
}

/// Why that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Daemon(#[from] xenplug_control::Error),
    #[error("xenplugd has no plugin {0:?}; `xenplug status --json` lists those it has")]
    Unknown(String),
}

impl Command {
    /// Does it, and says what was done.
    pub(crate) async fn run(&self, daemon: &Client) -> Result<String, Error> {
        let Self::Release { name } = self;
        // As the daemon's configuration wants it, and what needs no quoting in a URL.
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match name.chars().all(plain) && !name.is_empty() && daemon.release(name).await? {
            true => Ok(format!("{name} runs again\n")),
            false => Err(Error::Unknown(name.clone())),
        }
    }
}
