//! Where a device lives in the store, and which device a watched path belongs to.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{DeviceKey, DomId, Kind, id, id::shortened};

/// Why a path is not one of a backend's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not below a domain's `backend` directory.
    #[error("{0:?} is not a backend's path")]
    NotBackend(String),
    /// Below it, but no device can have that name.
    #[error(transparent)]
    Name(#[from] id::Error),
}

/// The directory of a backend: `/local/domain/0/backend/vbd/3/51712`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackendPath {
    /// The domain that serves the device.
    pub backend: DomId,
    /// Which of its devices.
    pub key: DeviceKey,
}

impl BackendPath {
    /// The frontend's directory, `/local/domain/3/device/vbd/51712`.
    ///
    /// Computed from the backend's level in the store, which the toolstack alone decides, and never taken from the
    /// `frontend` node, which whoever serves or uses the device may rewrite (XSA-175, XSA-178).
    pub fn frontend_path(&self) -> String {
        let DeviceKey { kind, frontend, devid } = &self.key;
        format!("/local/domain/{frontend}/device/{}/{devid}", kind.frontend())
    }

    /// A node of the backend's directory.
    pub fn node(&self, name: &str) -> String {
        format!("{self}/{name}")
    }
}

impl fmt::Display for BackendPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/local/domain/{}/backend/{}", self.backend, self.key)
    }
}

impl FromStr for BackendPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        // The own domain is only asked for by relative paths, which are refused here.
        match WatchedPath::parse(text, DomId(0))? {
            WatchedPath {
                backend,
                level: WatchLevel::Device { key, leaf: None },
            } if text.starts_with('/') => Ok(Self { backend, key }),
            _ => Err(Error::NotBackend(shortened(text))),
        }
    }
}

impl TryFrom<String> for BackendPath {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<BackendPath> for String {
    fn from(path: BackendPath) -> Self {
        path.to_string()
    }
}

/// A path that a watch on a `backend` directory reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedPath<'a> {
    /// The domain whose directory it is.
    pub backend: DomId,
    /// How deep in it.
    pub level: WatchLevel<'a>,
}

/// Which level of a `backend` directory a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchLevel<'a> {
    /// `backend`: everything may have changed.
    Root,
    /// `backend/KIND`: every device of a kind may have.
    Kind(Kind),
    /// `backend/KIND/DOMID`: every device of a kind of one guest.
    Domain(Kind, DomId),
    /// `backend/KIND/DOMID/DEVID`, or a node in it.
    Device {
        /// Which device.
        key: DeviceKey,
        /// What of it, without a slash before it, such as `state` or `feature/x`; `None` for the directory itself.
        leaf: Option<&'a str>,
    },
}

impl<'a> WatchedPath<'a> {
    /// Reads an absolute path (`/local/domain/0/backend/...`), or one relative to the domain `own` (`backend/...`), as
    /// the store reports it for a watch that was set with a relative one.
    pub fn parse(path: &'a str, own: DomId) -> Result<Self, Error> {
        let foreign = || Error::NotBackend(shortened(path));
        let (backend, below) = match path.strip_prefix("/local/domain/") {
            Some(rest) => {
                let (domid, below) = rest.split_once('/').ok_or_else(foreign)?;
                (domid.parse()?, below)
            }
            None => (own, path),
        };
        let below = below.strip_prefix("backend").ok_or_else(foreign)?;
        let level = match below.strip_prefix('/') {
            Some(names) => WatchLevel::parse(names)?,
            None if below.is_empty() => WatchLevel::Root,
            None => return Err(foreign()),
        };
        Ok(Self { backend, level })
    }
}

impl<'a> WatchLevel<'a> {
    /// Reads what follows `backend/`.
    fn parse(names: &'a str) -> Result<Self, id::Error> {
        let mut parts = names.splitn(4, '/');
        let kind = parts.next().unwrap_or_default().parse()?;
        let Some(frontend) = parts.next() else {
            return Ok(Self::Kind(kind));
        };
        let frontend = frontend.parse()?;
        let Some(devid) = parts.next() else {
            return Ok(Self::Domain(kind, frontend));
        };
        let key = DeviceKey {
            kind,
            frontend,
            devid: devid.parse()?,
        };
        Ok(Self::Device {
            key,
            leaf: parts.next(),
        })
    }
}
