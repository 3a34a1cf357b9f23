//! A simulated host in memory, from a description in a file: to try things out without root.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use bytesize::ByteSize;
use serde::Deserialize;
use xenplug_system::{Platform, network::IfName};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    #[serde(default)]
    files: Vec<File>,
    #[serde(default)]
    bridges: Vec<IfName>,
    /// Network interfaces other than bridges, such as netback's `vif3.0`.
    #[serde(default)]
    links: Vec<IfName>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: PathBuf,
    size: ByteSize,
}

/// Creates the host that a file describes.
pub(crate) fn host(description: &Path) -> anyhow::Result<Platform> {
    let what = || format!("cannot read the simulated host {}", description.display());
    let text = fs::read_to_string(description).with_context(what)?;
    let description: Description = toml::from_str(&text).with_context(what)?;
    let (platform, host) = Platform::simulated();
    for file in description.files {
        host.add_file(file.path, file.size.as_u64());
    }
    for bridge in description.bridges {
        host.add_bridge(&bridge);
    }
    for link in description.links {
        host.add_link(&link);
    }
    Ok(platform)
}
