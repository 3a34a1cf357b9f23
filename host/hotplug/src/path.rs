//! Paths of requests in the store.

use std::{fmt, str::FromStr};

use xenplug_xenbus::{BackendPath, DevId, DeviceKey, DomId, Kind};

/// Error of a text that is not a path of the protocol.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text is not a class of devices.
    #[error("{0:?} is not a class of devices: vbd or vif")]
    Class(String),
    /// The text is not the path of a request.
    #[error("{0:?} is not a request: /hotplug/domain/DOMAIN/CLASS/DOMAIN/DEVICE")]
    Request(String),
    /// The path has the right form and an invalid name in it.
    #[error(transparent)]
    Name(#[from] xenplug_xenbus::id::Error),
}

/// Class of a device as its guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Disk of any backend kind.
    Vbd,
    /// Network interface.
    Vif,
}

impl Class {
    /// Returns the class's name in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vbd => "vbd",
            Self::Vif => "vif",
        }
    }

    /// Returns the kinds of backend that serve such devices.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Vbd => &[Kind::VBD, Kind::VBD3, Kind::QDISK],
            Self::Vif => &[Kind::VIF],
        }
    }

    /// Returns the kind that the kernel serves.
    pub fn kernel_kind(self) -> Kind {
        match self {
            Self::Vbd => Kind::VBD,
            Self::Vif => Kind::VIF,
        }
    }

    /// Tells whether a backend of this kind serves such devices.
    pub fn is_served_by(self, kind: &Kind) -> bool {
        self.kinds().contains(kind)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Class {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "vbd" => Ok(Self::Vbd),
            "vif" => Ok(Self::Vif),
            _ => Err(Error::Class(text.chars().take(64).collect())),
        }
    }
}

/// Returns the directory of a driver domain's requests.
pub fn driver_domain(backend: DomId) -> String {
    format!("/hotplug/domain/{backend}")
}

/// Path of a request: `/hotplug/domain/1/vbd/3/51712`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestPath {
    /// Domain that serves the device.
    pub backend: DomId,
    /// Class of the device.
    pub class: Class,
    /// Domain that uses the device.
    pub frontend: DomId,
    /// Device number.
    pub devid: DevId,
}

impl RequestPath {
    /// Returns the path of a request for this device, or `None` if its kind cannot be requested.
    pub fn of(backend: DomId, device: &DeviceKey) -> Option<Self> {
        let class = [Class::Vbd, Class::Vif]
            .into_iter()
            .find(|class| class.is_served_by(&device.kind))?;
        Some(Self {
            backend,
            class,
            frontend: device.frontend,
            devid: device.devid,
        })
    }

    /// Returns the path of one of its nodes.
    pub fn node(&self, name: &str) -> String {
        format!("{self}/{name}")
    }

    /// Returns the frontend's directory, which follows from the request's path and from none of its nodes.
    pub fn frontend_path(&self) -> String {
        let Self {
            class, frontend, devid, ..
        } = self;
        format!("/local/domain/{frontend}/device/{class}/{devid}")
    }

    /// Returns the backend's directory for a backend of this kind.
    pub fn backend_path(&self, kind: Kind) -> BackendPath {
        BackendPath {
            backend: self.backend,
            key: DeviceKey {
                kind,
                frontend: self.frontend,
                devid: self.devid,
            },
        }
    }
}

impl fmt::Display for RequestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            class,
            frontend,
            devid,
        } = self;
        write!(f, "{}/{class}/{frontend}/{devid}", driver_domain(*backend))
    }
}

impl FromStr for RequestPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.split('/').collect();
        match parts[..] {
            ["", "hotplug", "domain", backend, class, frontend, devid] => Ok(Self {
                backend: backend.parse()?,
                class: class.parse()?,
                frontend: frontend.parse()?,
                devid: devid.parse()?,
            }),
            _ => Err(Error::Request(text.chars().take(128).collect())),
        }
    }
}
