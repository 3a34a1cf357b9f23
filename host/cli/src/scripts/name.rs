//! Names of scripts that a stand-in may take the place of.

use std::{fmt, path::Path, str::FromStr};

/// What a folder of scripts also has, and who runs or reads it instead of a toolstack that plugs a device.
const OTHERS: [(&str, &str); 6] = [
    ("block-drbd-probe", "Remus asks it about a disk's replication"),
    ("remus-netbuf-setup", "Remus sets up its network buffer with it"),
    ("colo-proxy-setup", "COLO sets up its proxy with it"),
    ("external-device-migrate", "it prepares a migration"),
    ("launch-xenstore", "it starts xenstored"),
    ("qemu-ifup", "QEMU runs it for its own links"),
];

/// The script that udev runs for every card, and that runs the card's own.
const DISPATCHER: &str = "vif-setup";

/// The scripts of a folder that stay the originals, each with the reason.
pub(super) fn staying(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let there = OTHERS.into_iter().filter(|(name, _)| folder.join(name).exists());
    there.collect()
}

/// A script's name, without its folder: `block`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(String);

/// Why no stand-in takes the place of a script of that name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0:?} is no script's name: letters, digits and -_., without its folder")]
    Malformed(String),
    #[error("{name} stays as it is: {why}")]
    Refused { name: String, why: &'static str },
}

impl Name {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The script that has to be stood in for as well wherever this one is, and its original is there: the stand-in only
    /// runs another script, as the original does, and needs no plugin.
    pub(super) fn dispatcher(&self) -> Option<Self> {
        self.0.starts_with("vif-").then(|| Self(DISPATCHER.to_owned()))
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        // A hidden one is not run, and those that we make have such names.
        if text.is_empty() || text.len() > 64 || text.starts_with(['.', '-']) || !text.bytes().all(is_plain) {
            return Err(Error::Malformed(text.chars().take(80).collect()));
        }
        let refused = |why| {
            Err(Error::Refused {
                name: text.to_owned(),
                why,
            })
        };
        if let Some((_, why)) = OTHERS.iter().find(|(other, _)| *other == text) {
            return refused(why);
        }
        if text.contains(".xenplug-") {
            return refused("it is Xenplug's own");
        }
        if text.ends_with(".sh") {
            return refused("the other scripts read it");
        }
        if [".dpkg-", ".rpm"].iter().any(|mark| text.contains(mark)) {
            return refused("a package manager has left it");
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
    fn what_plugs_a_device_may_be_stood_in_for_and_nothing_else() {
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
