//! Nodes of a request that both sides decide by.

use std::{fmt, str::FromStr};

pub use xenplug_xenbus::REQUEST_NODE;

/// Version of the protocol that this crate implements.
pub const VERSION: u32 = 1;

/// Longest text of an `error` node, in bytes. A node of an unprivileged domain has at most 2048 with its metadata
/// (tools/xenstored/core.c, `quota_max_entry_size`).
pub const ERROR_MAX: usize = 1024;

/// Nodes of a request that belong to the protocol. All others are copied to the backend's directory.
pub const OWN_NODES: [&str; 8] = ["version", "id", "vm", "kind", "state", "error", "force", "frontend"];

/// Nodes of a backend's directory that its driver domain writes. A request with one of them is refused.
pub const DECIDED_BY_BACKEND: [&str; 8] = [
    "frontend-id",
    "online",
    REQUEST_NODE,
    "hotplug-status",
    "hotplug-error",
    "physical-device",
    "physical-device-path",
    "node",
];

/// Error of a text that is not a request's id.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a request's id: 32 hexadecimal digits in lower case")]
pub struct IdError(String);

/// Unique id of a request: 128 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RequestId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(text, 16) {
            Ok(number) if fits => Ok(Self(number)),
            _ => Err(IdError(text.chars().take(64).collect())),
        }
    }
}

/// State of a request. The numbers are those of xenbus states with about the same meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The toolstack has written the request; only an empty frontend exists.
    Requested,
    /// The driver domain has created backend and frontend and sets the device up.
    Accepted,
    /// The device is set up and the guest may connect.
    Ready,
    /// The guest is connected.
    InUse,
    /// The toolstack has asked for the device to be released.
    Detaching,
    /// The driver domain has released everything.
    Closed,
    /// The node is missing or invalid.
    Unknown,
}

impl State {
    /// Parses a node's value.
    pub fn parse(text: &str) -> Self {
        match text {
            "1" => Self::Requested,
            "2" => Self::Accepted,
            "3" => Self::Ready,
            "4" => Self::InUse,
            "5" => Self::Detaching,
            "6" => Self::Closed,
            _ => Self::Unknown,
        }
    }

    /// Returns the text to write, empty for [`Self::Unknown`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "1",
            Self::Accepted => "2",
            Self::Ready => "3",
            Self::InUse => "4",
            Self::Detaching => "5",
            Self::Closed => "6",
            Self::Unknown => "",
        }
    }
}

/// Request as both sides read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Unique id.
    pub id: RequestId,
    /// The guest's `vm` node when the request was written; unlike a domain id it is never reused.
    pub vm: String,
    /// Progress of the request.
    pub state: State,
    /// Do not wait for the guest.
    pub force: bool,
    /// The driver domain's error, or empty.
    pub error: String,
}
