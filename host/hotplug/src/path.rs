//! Where requests are in the store.

use std::{fmt, str::FromStr};

use xenplug_xenbus::{BackendPath, DevId, DeviceKey, DomId, Kind};

/// Why a text is not of the protocol's directory.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not a class of devices.
    #[error("{0:?} is not a class of devices: vbd or vif")]
    Class(String),
    /// Not the path of a request.
    #[error("{0:?} is not a request: /hotplug/domain/DOMAIN/CLASS/DOMAIN/DEVICE")]
    Request(String),
    /// It has the form of one, and a name in it is none.
    #[error(transparent)]
    Name(#[from] xenplug_xenbus::id::Error),
}

/// What a device is to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// A disk, whatever serves it.
    Vbd,
    /// A network card.
    Vif,
}

impl Class {
    /// Its name in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vbd => "vbd",
            Self::Vif => "vif",
        }
    }

    /// The kinds of backend that serve such devices.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Vbd => &[Kind::VBD, Kind::VBD3, Kind::QDISK],
            Self::Vif => &[Kind::VIF],
        }
    }

    /// The kind that the kernel serves.
    pub fn kernel_kind(self) -> Kind {
        match self {
            Self::Vbd => Kind::VBD,
            Self::Vif => Kind::VIF,
        }
    }

    /// Whether a backend of that kind serves such devices.
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

/// The directory of all that is asked of a driver domain.
pub fn driver_domain(backend: DomId) -> String {
    format!("/hotplug/domain/{backend}")
}

/// The directory of a request: `/hotplug/domain/1/vbd/3/51712`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestPath {
    /// The domain that is asked.
    pub backend: DomId,
    /// What for.
    pub class: Class,
    /// The domain that the device is for.
    pub frontend: DomId,
    /// Its number.
    pub devid: DevId,
}

impl RequestPath {
    /// Where a device of that domain's would have been asked for. `None` for a kind that nobody can ask for.
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

    /// A node of it.
    pub fn node(&self, name: &str) -> String {
        format!("{self}/{name}")
    }

    /// The frontend's directory, which follows from the place of the request and from nothing that is written in it.
    pub fn frontend_path(&self) -> String {
        let Self {
            class, frontend, devid, ..
        } = self;
        format!("/local/domain/{frontend}/device/{class}/{devid}")
    }

    /// The backend's directory, if it is of that kind.
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
