//! The files of a DHCP server.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    Dhcp, Error,
    dhcp::{Lease, Server, text},
    grant::DhcpGrant,
    lock,
    lock::{Locks, VIF_NAT_DHCP, taken},
};

/// How long a script may take to change the same files.
const PATIENCE: Duration = Duration::from_secs(8);

/// The files of DHCP servers. One change is made at a time: all guests' entries are in the same ones.
pub(crate) struct LinuxDhcp {
    changes: Mutex<()>,
    /// What keeps the original scripts from changing them, too.
    locks: Arc<dyn Locks>,
}

impl LinuxDhcp {
    pub(crate) fn new(locks: Arc<dyn Locks>) -> Self {
        Self {
            changes: Mutex::default(),
            locks,
        }
    }
}

impl Dhcp for LinuxDhcp {
    fn enter(&self, grant: &DhcpGrant, server: &Server, lease: &Lease) -> Result<(), Error> {
        grant.permit(server)?;
        text::check(lease)?;
        let _alone = lock(&self.changes);
        let _before_scripts = taken(&*self.locks, VIF_NAT_DHCP, PATIENCE)?;
        rewrite(&server.configuration, |before| text::with_entry(before, lease))?;
        match &server.links {
            Some(links) => rewrite(links, |before| text::with_link(before, lease)),
            None => Ok(()),
        }
    }

    fn strike(&self, grant: &DhcpGrant, server: &Server, lease: &Lease) -> Result<(), Error> {
        grant.permit(server)?;
        let _alone = lock(&self.changes);
        let _before_scripts = taken(&*self.locks, VIF_NAT_DHCP, PATIENCE)?;
        let rewritten = |path: &Path, change: &dyn Fn(&str) -> String| match rewrite(path, change) {
            Err(Error::NotFound(_)) => Ok(()),
            rewritten => rewritten,
        };
        rewritten(&server.configuration, &|before| text::without_entry(before, lease))?;
        match &server.links {
            Some(links) => rewritten(links, &|before| text::without_link(before, lease)),
            None => Ok(()),
        }
    }
}

/// Puts another file in a file's place, with the same owner and mode: whoever reads it finds the one or the other whole.
/// Where a link is, what it leads to is replaced.
fn rewrite(path: &Path, change: impl Fn(&str) -> String) -> Result<(), Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound(format!("there is no {}", path.display())),
        _ => Error::io(format!("rewrite {}", path.display()), &error),
    };
    let file = fs::canonicalize(path).map_err(failed)?;
    let before = fs::read_to_string(&file).map_err(failed)?;
    let after = change(&before);
    if after == before {
        return Ok(());
    }
    let facts = fs::metadata(&file).map_err(failed)?;
    let mut name = file.clone().into_os_string();
    name.push(".xenplug-new");
    let new = PathBuf::from(name);
    let replaced = fs::write(&new, after)
        .and_then(|()| chown(&new, Some(facts.uid()), Some(facts.gid())))
        .and_then(|()| fs::set_permissions(&new, facts.permissions()))
        .and_then(|()| fs::rename(&new, &file));
    replaced.map_err(|error| {
        // If it cannot be removed either, the next change replaces it.
        let _ = fs::remove_file(&new);
        failed(error)
    })
}
