//! What a request in the store says, as far as both sides decide by it.

use std::{fmt, str::FromStr};

pub use xenplug_xenbus::REQUEST_NODE;

/// The version of the protocol that this crate speaks.
pub const VERSION: u32 = 1;

/// The longest text of an `error` node, in bytes: an unprivileged domain's nodes are 2048 with all that belongs to them
/// (tools/xenstored/core.c, `quota_max_entry_size`).
pub const ERROR_MAX: usize = 1024;

/// The nodes of a request that are the protocol's own. All others are nodes of the backend's directory.
pub const OWN_NODES: [&str; 8] = ["version", "id", "vm", "kind", "state", "error", "force", "frontend"];

/// Nodes of a backend's directory that its driver domain decides: a request with one of them is refused.
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

/// Why a text is not a request's id.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a request's id: 32 hexadecimal digits in lower case")]
pub struct IdError(String);

/// What tells one request from every other, whatever its place: 128 random bits.
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

/// How far a request is. The numbers are those of a xenbus state of about the same meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// The toolstack wants the device, and nobody has taken that up: nothing of it exists but an empty frontend.
    Requested,
    /// The driver domain has made backend and frontend, and sets up what they need.
    Accepted,
    /// Set up: the guest may connect.
    Ready,
    /// The guest is connected.
    InUse,
    /// The toolstack does not want the device any more.
    Detaching,
    /// The driver domain has taken everything down, and holds nothing for it.
    Closed,
    /// Nothing that means anything.
    Unknown,
}

impl State {
    /// What a node's text stands for.
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

    /// The text to write. [`Self::Unknown`] is written by nobody.
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

/// A request, as both sides see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Which it is.
    pub id: RequestId,
    /// The guest's `vm` node when it was written: a domain id is used again, this is not.
    pub vm: String,
    /// How far it is.
    pub state: State,
    /// Whether the guest is not to be waited for.
    pub force: bool,
    /// Why the driver domain does not serve it, or did not; empty if it does.
    pub error: String,
}
