//! A machine that exists only in memory, from a description in a file: for trying things out without root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use bytesize::ByteSize;
use serde::Deserialize;
use xenplug_system::{Platform, network::IfName};

/// What is on the machine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Files, such as disk images.
    #[serde(default)]
    files: Vec<File>,
    /// Bridges.
    #[serde(default)]
    bridges: Vec<IfName>,
    /// Other network interfaces, such as netback's `vif3.0`.
    #[serde(default)]
    links: Vec<IfName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: PathBuf,
    size: ByteSize,
}

/// Makes the machine that a file describes.
pub(crate) fn machine(description: &Path) -> anyhow::Result<Platform> {
    let place = || format!("the simulated machine, {}", description.display());
    let text = fs::read_to_string(description).with_context(place)?;
    let description: Description = toml::from_str(&text).with_context(place)?;
    let (system, machine) = Platform::simulated();
    for file in description.files {
        machine.add_file(file.path, file.size.as_u64());
    }
    for bridge in description.bridges {
        machine.add_bridge(&bridge);
    }
    for link in description.links {
        machine.add_link(&link);
    }
    Ok(system)
}
