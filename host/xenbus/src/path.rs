//! Paths of backends in the store, and parsing of watched paths.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{DeviceKey, DomId, Kind, id, id::shortened};

/// Error of a path that is not a backend's.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The path is not below a domain's `backend` directory.
    #[error("{0:?} is not a backend's path")]
    NotBackend(String),
    /// The path is below it, but no device can have that name.
    #[error(transparent)]
    Name(#[from] id::Error),
}

/// Directory of a backend: `/local/domain/0/backend/vbd/3/51712`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackendPath {
    /// Domain that serves the device.
    pub backend: DomId,
    /// Key of the device in that domain.
    pub key: DeviceKey,
}

impl BackendPath {
    /// Returns the frontend's directory, `/local/domain/3/device/vbd/51712`.
    ///
    /// It follows from the backend's path, which the toolstack alone decides, and never from the `frontend` node, which
    /// the backend domain or the guest may rewrite (XSA-175, XSA-178).
    pub fn frontend_path(&self) -> String {
        let DeviceKey { kind, frontend, devid } = &self.key;
        format!("/local/domain/{frontend}/device/{}/{devid}", kind.frontend())
    }

    /// Returns the path of a node in the directory.
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
        // Only relative paths use the own domain, and they are refused here.
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

/// Path reported by a watch on a `backend` directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedPath<'a> {
    /// Domain that the directory belongs to.
    pub backend: DomId,
    /// Level within the directory.
    pub level: WatchLevel<'a>,
}

/// Level of a path within a `backend` directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchLevel<'a> {
    /// `backend`: any device may have changed.
    Root,
    /// `backend/KIND`: any device of the kind may have changed.
    Kind(Kind),
    /// `backend/KIND/DOMID`: any device of the kind of one guest may have changed.
    Domain(Kind, DomId),
    /// `backend/KIND/DOMID/DEVID`, or a node in it.
    Device {
        /// Key of the device.
        key: DeviceKey,
        /// Relative path of the node, such as `state` or `feature/x`; `None` for the directory itself.
        leaf: Option<&'a str>,
    },
}

impl<'a> WatchedPath<'a> {
    /// Parses an absolute path (`/local/domain/0/backend/...`), or one relative to the domain `own` (`backend/...`), as
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
    /// Parses the part after `backend/`.
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
