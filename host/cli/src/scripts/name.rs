//! Names of scripts that a shim may replace.

use std::{fmt, path::Path, str::FromStr};

/// Other scripts of the folder, which no toolstack runs to connect a device, with their purpose.
const UNREPLACED: [(&str, &str); 6] = [
    ("block-drbd-probe", "Remus asks it about a disk's replication"),
    ("remus-netbuf-setup", "Remus sets up its network buffer with it"),
    ("colo-proxy-setup", "COLO sets up its proxy with it"),
    ("external-device-migrate", "it prepares a migration"),
    ("launch-xenstore", "it starts xenstored"),
    ("qemu-ifup", "QEMU runs it for its own links"),
];

/// Script that udev runs for every vif, and that runs the vif's own.
const DISPATCHER: &str = "vif-setup";

/// Returns the scripts of a folder that are never replaced, each with the reason.
pub(super) fn unreplaced(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let there = UNREPLACED.into_iter().filter(|(name, _)| folder.join(name).exists());
    there.collect()
}

/// Name of a script without its folder: `block`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

/// Error of a name that no shim may have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0:?} is not a script's name: letters, digits and -_., without a folder")]
    Malformed(String),
    #[error("{name} cannot be replaced: {why}")]
    Refused { name: String, why: &'static str },
}

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the script that has to be replaced together with this one: its shim only runs another script, as the original
    /// does, and needs no plugin.
    pub(super) fn dispatcher(&self) -> Option<Self> {
        self.0.starts_with("vif-").then(|| Self(DISPATCHER.to_owned()))
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        // Hidden names are those of temporary files.
        if text.is_empty() || text.len() > 64 || text.starts_with(['.', '-']) || !text.bytes().all(is_plain) {
            return Err(Error::Malformed(text.chars().take(80).collect()));
        }
        let refused = |why| {
            Err(Error::Refused {
                name: text.to_owned(),
                why,
            })
        };
        if let Some((_, why)) = UNREPLACED.iter().find(|(other, _)| *other == text) {
            return refused(why);
        }
        if text.contains(".xenplug-") {
            return refused("Xenplug made it");
        }
        if text.ends_with(".sh") {
            return refused("the other scripts source it");
        }
        if [".dpkg-", ".rpm"].iter().any(|mark| text.contains(mark)) {
            return refused("a package manager made it");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scripts_that_connect_devices_may_be_replaced() {
        for name in [
            "block",
            "block-tap",
            "vif-bridge",
            "vif-setup",
            "vif-openvswitch",
            "vscsi",
            "block-my_own.py",
        ] {
            assert_eq!(name.parse::<Name>().map(|name| name.to_string()), Ok(name.to_owned()));
        }
        for name in [
            "",
            ".",
            "..",
            "../block",
            "/etc/passwd",
            "a b",
            ".block",
            "-x",
            "bl\u{f6}ck",
            &"x".repeat(65),
        ] {
            assert!(matches!(name.parse::<Name>(), Err(Error::Malformed(_))), "{name:?}");
        }
        for name in [
            "block-drbd-probe",
            "remus-netbuf-setup",
            "colo-proxy-setup",
            "external-device-migrate",
            "vif-common.sh",
            "block.xenplug-original",
            "block.dpkg-dist",
        ] {
            assert!(matches!(name.parse::<Name>(), Err(Error::Refused { .. })), "{name:?}");
        }
    }
}
