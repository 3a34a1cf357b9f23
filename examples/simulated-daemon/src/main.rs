//! `xenplugd` on a host that exists only in memory: for the demo without root.
//!
//! `XENPLUG_SIMULATED_HOST` names a file that describes the host, in TOML: `files = [{ path = "/srv/a.img", size = "64MiB" }]`,
//! `bridges = ["xenbr0"]`, `links = ["vif3.0"]`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use bytesize::ByteSize;
use serde::Deserialize;
use xenplug_system::{Platform, network::IfName};

const HOST: &str = "XENPLUG_SIMULATED_HOST";

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

fn main() -> ExitCode {
    xenplugd::main_on(|_| {
        let file = env::var_os(HOST).with_context(|| format!("{HOST} is not set"))?;
        host(Path::new(&file))
    })
}

/// Creates the host that a file describes.
fn host(description: &Path) -> anyhow::Result<Platform> {
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
