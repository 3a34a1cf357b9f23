//! Values of a backend's `state` and `hotplug-status` nodes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// State of one end of a device (xen/include/public/io/xenbus.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[repr(u8)]
pub enum XenbusState {
    /// The node is missing or invalid.
    #[default]
    Unknown = 0,
    /// The toolstack has written the device; no driver has bound to it.
    Initialising = 1,
    /// The driver waits for hotplug and the other end.
    InitWait = 2,
    /// The driver waits for the other end to connect.
    Initialised = 3,
    /// The device is in use.
    Connected = 4,
    /// The device is closing, after an error or a request.
    Closing = 5,
    /// The device is closed.
    Closed = 6,
    /// The device is being reconfigured.
    Reconfiguring = 7,
    /// The reconfiguration is done.
    Reconfigured = 8,
}

impl XenbusState {
    /// All states, in the order of their numbers.
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

    /// Parses a node's value. Any text but a number from 0 to 8 is [`Self::Unknown`], as it is to the kernel
    /// (drivers/xen/xenbus/xenbus_client.c, `xenbus_read_driver_state`).
    pub fn parse(text: &str) -> Self {
        match text.as_bytes() {
            [digit @ b'0'..=b'8'] => Self::ALL[usize::from(digit - b'0')],
            _ => Self::Unknown,
        }
    }

    /// Returns the number that the store holds.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for XenbusState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Value of `hotplug-status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HotplugStatus {
    /// The node is missing or empty; libxl creates an empty one for a vif.
    #[default]
    None,
    /// The device is set up. Netback holds its frontend back until it reads exactly this.
    Connected,
    /// The set-up failed; `hotplug-error` has the cause.
    Error,
    /// The set-up failed because a resource is in use.
    Busy,
    /// Everything is released.
    Disconnected,
    /// A value that no known program writes.
    Other,
}

impl HotplugStatus {
    /// All values.
    pub const ALL: [Self; 6] = [
        Self::None,
        Self::Connected,
        Self::Error,
        Self::Busy,
        Self::Disconnected,
        Self::Other,
    ];

    /// Parses the node's value; `None` means that there is no such node.
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

    /// Returns the text to write, empty for [`Self::None`] and [`Self::Other`].
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
