//! Rules for the resolution of paths, shared by Linux and the simulated host.
//!
//! A path is resolved within a rule's directory, without following links. The target of a link on the way is checked
//! against the grant like the path itself. Someone who can write in the directory, and who swaps files meanwhile, thus
//! reaches only other granted files.
//!
//! One kind of link may lead out of its rule: `/dev/vg0/disk` is a link to `/dev/dm-3`, and `/dev/disk/by-id/...` to
//! `/dev/sda`. udev makes such links. One is followed if it is on the file system of /dev, belongs to root, and leads
//! to a block device on that same file system.

use std::path::{Component, Path, PathBuf};

use crate::{
    Error,
    grant::{Access, BlockGrant},
};

/// Maximum number of links to follow (include/linux/namei.h, `MAXSYMLINKS`).
pub(crate) const MAX_LINKS: usize = 40;

/// Directory of the host's devices.
pub(crate) const DEV: &str = "/dev";

/// A link that was followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Access that the rule of the link allows to its target.
    pub access: Access,
    /// Set for a link of root's on the file system of /dev.
    pub of_dev: bool,
}

/// Directory in which a path is resolved, with the access that is allowed there.
#[derive(Debug)]
pub(crate) struct LookupRoot {
    /// A rule's path, or /dev. Links in it are followed: they are the operator's.
    pub directory: PathBuf,
    /// Rest of the path below it.
    pub rest: PathBuf,
    access: Access,
    /// Set if a rule grants the directory; unset if only a link in /dev leads there.
    granted: bool,
}

impl LookupRoot {
    /// Selects the most specific rule for a path. After a link of udev's, a path without a rule may be in /dev.
    pub(crate) fn of(
        grant: &BlockGrant,
        path: &Path,
        link: Option<Link>,
        canonical: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Option<Self> {
        if let Some((rule, rest)) = grant.rule(path) {
            return Some(Self {
                directory: rule.directory().to_owned(),
                rest: rest.into(),
                access: rule.access,
                granted: true,
            });
        }
        let link = link?;
        // The target of a link is a real path, while the rule's path may contain links.
        let real = grant.rules().iter().filter_map(|rule| {
            let directory = canonical(rule.directory())?;
            let rest = rule.rest(&directory, path)?.into();
            Some(Self {
                directory,
                rest,
                access: rule.access,
                granted: true,
            })
        });
        real.max_by_key(|root| root.directory.components().count()).or_else(|| {
            let rest = path.strip_prefix(DEV).ok().filter(|_| link.of_dev)?.into();
            Some(Self {
                directory: DEV.into(),
                rest,
                access: link.access,
                granted: false,
            })
        })
    }

    /// Describes a link found in this directory.
    pub(crate) fn link(&self, of_dev: bool) -> Link {
        Link {
            access: self.access,
            of_dev,
        }
    }

    /// Returns an error unless a file or device found in this directory may be used with this access.
    pub(crate) fn permit(&self, wanted: &Path, access: Access, device_of_dev: bool) -> Result<(), Error> {
        if !self.granted && !device_of_dev {
            return Err(not_granted(wanted, true));
        }
        if access > self.access {
            return Err(Error::Denied(format!(
                "{} is granted for reading only",
                wanted.display()
            )));
        }
        Ok(())
    }
}

/// Error for a path that no rule covers, or (with `linked`) for a link that leads out of the grant.
pub(crate) fn not_granted(wanted: &Path, linked: bool) -> Error {
    let what = if linked {
        "leads to a place that is not granted"
    } else {
        "is not granted"
    };
    Error::Denied(format!("{} {what}", wanted.display()))
}

/// Error for a path that leads to something other than a disk.
pub(crate) fn no_disk(wanted: &Path) -> Error {
    Error::params(format!("{} is neither a file nor a block device", wanted.display()))
}

/// Error for a path that does not exist.
pub(crate) fn missing(wanted: &Path) -> Error {
    Error::NotFound(format!("{} does not exist", wanted.display()))
}

/// Error for a write to something read-only, worded as in Xen's block script.
pub(crate) fn read_only(kind: &str, wanted: &Path) -> Error {
    let wanted = wanted.display();
    Error::Busy(format!(
        "{kind} {wanted} is read-only, and so I will not mount it read-write in a guest domain."
    ))
}

/// Joins `directory` (a path without links), the target of a link in it, and the `rest` of the path after the link.
/// Returns `None` for a target in which `..` follows a name: that name may be a link, and `..` then leads elsewhere.
pub(crate) fn target(directory: &Path, target: &Path, rest: &Path) -> Option<PathBuf> {
    let mut path = directory.to_owned();
    let mut named = false;
    for component in target.components() {
        match component {
            Component::RootDir => path = "/".into(),
            Component::ParentDir if named => return None,
            Component::ParentDir => _ = path.pop(),
            Component::Normal(name) => {
                path.push(name);
                named = true;
            }
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
    // `push` of an empty path would leave a slash at the end.
    Some(if rest.as_os_str().is_empty() {
        path
    } else {
        path.join(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_target_is_relative_to_the_link() {
        for (directory, link, rest, expected) in [
            ("/srv/images", "a.img", "", Some("/srv/images/a.img")),
            ("/srv/images", "../a.img", "", Some("/srv/a.img")),
            ("/srv/images", "../../../../a.img", "", Some("/a.img")),
            ("/srv/images", "/etc/shadow", "", Some("/etc/shadow")),
            ("/srv/images", "./b", "c/d", Some("/srv/images/b/c/d")),
            ("/srv/images", "b/../c", "", None),
            ("/srv/images", "/b/..", "", None),
        ] {
            let found = target(Path::new(directory), Path::new(link), Path::new(rest));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{link}");
        }
    }
}
