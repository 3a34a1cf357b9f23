//! The two words by which a backend's progress is known: `state` and `hotplug-status`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The state of one end of a device (xen/include/public/io/xenbus.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum XenbusState {
    /// No state, or none that means anything.
    #[default]
    Unknown = 0,
    /// Written by the toolstack; nobody has taken it up.
    Initialising = 1,
    /// Taken up, and waiting for hotplug and the other end.
    InitWait = 2,
    /// Waiting for the other end to connect.
    Initialised = 3,
    /// In use.
    Connected = 4,
    /// Going down, because of an error or at someone's wish.
    Closing = 5,
    /// Down.
    Closed = 6,
    /// Being changed.
    Reconfiguring = 7,
    /// Changed.
    Reconfigured = 8,
}

impl XenbusState {
    /// Every state, in order of its number.
    pub const ALL: [Self; 9] = [
        Self::Unknown,
        Self::Initialising,
        Self::InitWait,
        Self::Initialised,
        Self::Connected,
        Self::Closing,
        Self::Closed,
        Self::Reconfiguring,
        Self::Reconfigured,
    ];

    /// The state that a node's text stands for. What is not a number from 0 to 8 is [`Self::Unknown`], as it is to the
    /// kernel (drivers/xen/xenbus/xenbus_client.c, `xenbus_read_driver_state`).
    pub fn parse(text: &str) -> Self {
        match text.as_bytes() {
            [digit @ b'0'..=b'8'] => Self::ALL[usize::from(digit - b'0')],
            _ => Self::Unknown,
        }
    }

    /// The number, as the store has it.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What `hotplug-status` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HotplugStatus {
    /// Absent or empty: libxl writes a vif's empty when it creates it.
    #[default]
    None,
    /// Set up. Netback holds its frontend back until it reads exactly this.
    Connected,
    /// Setting it up failed; `hotplug-error` says why.
    Error,
    /// What it needs is in use.
    Busy,
    /// Taken down.
    Disconnected,
    /// Something else, which is nobody's word.
    Other,
}

impl HotplugStatus {
    /// Every status.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Connected,
        Self::Error,
        Self::Busy,
        Self::Disconnected,
        Self::Other,
    ];

    /// The status that the node's text stands for, `None` where there is no such node.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("") => Self::None,
            Some("connected") => Self::Connected,
            Some("error") => Self::Error,
            Some("busy") => Self::Busy,
            Some("disconnected") => Self::Disconnected,
            Some(_) => Self::Other,
        }
    }

    /// The text to write. Empty for [`Self::None`] and [`Self::Other`], which nobody writes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Error => "error",
            Self::Busy => "busy",
            Self::Disconnected => "disconnected",
            Self::None | Self::Other => "",
        }
    }
}
