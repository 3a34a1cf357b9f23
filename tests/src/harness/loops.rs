//! Loop devices of the host on files of a test.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::namespace::output;
use crate::floor::loop_device;

/// Loop device with its backing file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loop {
    /// Path of the device, such as `/dev/loop7`.
    pub device: PathBuf,
    /// Path of the file as sysfs shows it, with ` (deleted)` at the end once the file is deleted.
    pub backing: String,
}

/// Returns the loop devices on files below a directory. Other loop devices of the host are foreign.
pub fn attached_below(directory: &Path) -> Result<Vec<Loop>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else {
            continue;
        };
        let backing = whole(backing.trim_end(), directory);
        if Path::new(&backing).starts_with(directory) {
            found.push(Loop {
                device: Path::new("/dev").join(entry.file_name()),
                backing,
            });
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the path of a backing file. Once the mount namespace that opened the file is gone, the kernel shows its path
/// below the mount, which is `/tmp` (`xenplug-enter`).
fn whole(backing: &str, directory: &Path) -> String {
    let below = directory.strip_prefix("/tmp").map(|below| Path::new("/").join(below));
    match below {
        Ok(below) if below != Path::new("/") && Path::new(backing).starts_with(&below) => format!("/tmp{backing}"),
        _ => backing.to_owned(),
    }
}

/// Detaches all loop devices on files below a directory.
pub fn detach_below(directory: &Path) -> Result<()> {
    for one in attached_below(directory)? {
        output(Command::new("losetup").arg("-d").arg(one.device))?;
    }
    Ok(())
}

/// Loop devices of the host, used or not. Dropping the value removes unused ones that were added since: the kernel adds
/// devices when all are in use, and removes none.
#[derive(Debug)]
pub struct LoopPool(BTreeSet<u32>);

impl LoopPool {
    /// Lists the current loop devices.
    pub fn now() -> Result<Self> {
        Ok(Self(numbers()?))
    }
}

impl Drop for LoopPool {
    fn drop(&mut self) {
        for number in numbers().unwrap_or_default().difference(&self.0) {
            // A device in use stays.
            let _ = loop_device::remove(*number);
        }
    }
}

fn numbers() -> Result<BTreeSet<u32>> {
    let names = fs::read_dir("/sys/block")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names
        .filter_map(|name| name.strip_prefix("loop")?.parse().ok())
        .collect())
}
