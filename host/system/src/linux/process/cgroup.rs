//! A cgroup for each helper, below the daemon's own, if the host has cgroup v2
//! (Documentation/admin-guide/cgroup-v2.rst).
//!
//! The descendants of a helper stay in its cgroup, and the kernel kills all of them at once (`cgroup.kill`, Linux
//! 5.14).

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::fs::{Mode, OFlags};

/// Beginning of a cgroup's name, before the process id of its helper.
pub(super) const PREFIX: &str = "xenplug-";

/// Returns the name of a helper's cgroup, with ten digits, which the child overwrites after the fork.
pub(super) fn name(pid: u32) -> String {
    format!("{PREFIX}{pid:010}")
}

/// Directory of the helpers' cgroups, if the host supports them.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    base: OnceLock<Option<Base>>,
}

#[derive(Debug)]
struct Base {
    path: PathBuf,
    fd: OwnedFd,
}

impl Cgroups {
    /// Disables cgroups.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self {
            base: OnceLock::from(None),
        }
    }

    /// Returns the directory in which to make a cgroup.
    pub(super) fn base(&self) -> Option<BorrowedFd<'_>> {
        self.find().map(|base| base.fd.as_fd())
    }

    /// Returns the processes in a helper's cgroup.
    pub(super) fn members(&self, pid: u32) -> Vec<u32> {
        let listed = self
            .path(pid)
            .and_then(|path| fs::read_to_string(path.join("cgroup.procs")).ok());
        listed
            .map(|listed| listed.lines().filter_map(|line| line.parse().ok()).collect())
            .unwrap_or_default()
    }

    /// Kills all processes in a helper's cgroup.
    pub(super) fn kill(&self, pid: u32) {
        if let Some(path) = self.path(pid) {
            // If that fails, the caller kills the members one by one.
            let _ = fs::write(path.join("cgroup.kill"), "1");
        }
    }

    /// Removes a helper's cgroup if it is empty.
    pub(super) fn remove(&self, pid: u32) {
        if let Some(path) = self.path(pid) {
            let _ = fs::remove_dir(path);
        }
    }

    fn path(&self, pid: u32) -> Option<PathBuf> {
        self.find().map(|base| base.path.join(name(pid)))
    }

    fn find(&self) -> Option<&Base> {
        self.base.get_or_init(Base::find).as_ref()
    }
}

impl Base {
    /// Finds the cgroup of this process.
    fn find() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let path = mounts.lines().find_map(mount_point)?.join(own);
        let fd = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        Some(Self { path, fd })
    }
}

/// Returns the mount point if a line of mountinfo describes a mount of the whole cgroup v2 hierarchy.
fn mount_point(line: &str) -> Option<&Path> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    (file_system.starts_with("cgroup2 ") && root == "/").then(|| Path::new(point))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_mount_is_found() {
        let whole = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(mount_point(whole), Some(Path::new("/sys/fs/cgroup")));
        for other in [
            "30 23 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
            "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
            "",
        ] {
            assert_eq!(mount_point(other), None, "{other}");
        }
    }
}
