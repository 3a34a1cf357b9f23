//! Rules for the resolution of paths, shared by Linux and the simulated host.
//!
//! A path is looked up within a rule's directory, without following links. Where a link on the way leads is looked up
//! in the grant like a path that was asked for. What is swapped meanwhile by someone who can write in the directory is
//! thus at worst another granted file.
//!
//! One kind of link may lead out of its rule: `/dev/vg0/disk` is a link to `/dev/dm-3`, and `/dev/disk/by-id/...` to
//! `/dev/sda`. A link on the file system of /dev itself that belongs to root, and leads to a block device on that same
//! file system, is udev's word for what the granted name means, and is followed.

use std::path::{Component, Path, PathBuf};

use crate::{
    Error,
    grant::{Access, BlockGrant},
};

/// Number of links that are followed (include/linux/namei.h, `MAXSYMLINKS`).
pub(crate) const MAX_LINKS: usize = 40;

/// Directory of the host's devices.
pub(crate) const DEV: &str = "/dev";

/// A link that was followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Access that the rule of the link allows to its target.
    pub access: Access,
    /// It is root's, on the file system of /dev.
    pub of_dev: bool,
}

/// Directory in which a path is looked up, with the access that is allowed there.
#[derive(Debug)]
pub(crate) struct LookupRoot {
    /// A rule's path, or /dev. Links in it are followed: they are the operator's.
    pub directory: PathBuf,
    /// Rest of the path below it.
    pub rest: PathBuf,
    access: Access,
    /// By a rule, and not by the word of a link in /dev.
    granted: bool,
}

impl LookupRoot {
    /// The most specific rule for a path; else, behind a link of /dev, /dev itself.
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
        // Where a link leads is a real path, while that of the rule may have links in it.
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

    /// The link that was found here.
    pub(crate) fn link(&self, of_dev: bool) -> Link {
        Link {
            access: self.access,
            of_dev,
        }
    }

    /// An error unless what was found here may be used that way.
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

/// A path that no rule covers, or that a link led out of what is granted.
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

/// Nothing is there.
pub(crate) fn missing(wanted: &Path) -> Error {
    Error::NotFound(format!("{} does not exist", wanted.display()))
}

/// Error for a write to something read-only, in the words of Xen's block script.
pub(crate) fn read_only(kind: &str, wanted: &Path) -> Error {
    let wanted = wanted.display();
    Error::Busy(format!(
        "{kind} {wanted} is read-only, and so I will not mount it read-write in a guest domain."
    ))
}

/// The path that a link in `directory`, whose own path has no links, makes of one that goes on with `rest`. `None` for
/// a target in which `..` follows a name: if that is a link, `..` is not what it looks like.
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
    // `push` of nothing would leave a slash at the end.
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
