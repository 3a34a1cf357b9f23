//! Domain ids, device ids and kinds of backend.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::XenbusState;

/// Longest name of a kind, in bytes. Xen's own names have at most seven; the store limits whole paths only.
const KIND_MAX: usize = 32;

/// First domain id that does not name a domain (xen/include/public/xen.h, `DOMID_FIRST_RESERVED`).
const DOMID_FIRST_RESERVED: u16 = 0x7ff0;

/// Error of a text that is not part of a device key.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text is not a domain id.
    #[error("{0:?} is not a domain id")]
    DomId(String),
    /// The text is not a device id.
    #[error("{0:?} is not a device id")]
    DevId(String),
    /// The text is not a kind of backend.
    #[error("{0:?} is not a kind of backend")]
    Kind(String),
    /// The text is not `KIND/DOMID/DEVID`.
    #[error("{0:?} is not a device: kind/domid/devid")]
    Device(String),
}

/// Domain id, below 0x7ff0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomId(pub u16);

/// Device number within its kind and frontend: 51712 for `xvda`, 0 for the first vif.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DevId(pub u32);

/// Kind of backend, the directory below `backend/`: 1 to 32 of `a-z`, `0-9`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// Disk served by the kernel (blkback).
    pub const VBD: Kind = Kind(Cow::Borrowed("vbd"));
    /// Network interface served by the kernel (netback).
    pub const VIF: Kind = Kind(Cow::Borrowed("vif"));
    /// Disk served by tapdisk (tapback).
    pub const VBD3: Kind = Kind(Cow::Borrowed("vbd3"));
    /// Disk served by QEMU.
    pub const QDISK: Kind = Kind(Cow::Borrowed("qdisk"));

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the backend's state in which its handler runs.
    ///
    /// The kernel's backends announce `InitWait` and then wait for what the handler sets up. Tapback and QEMU reach
    /// `InitWait` only after their handler, which therefore runs as soon as the toolstack has written the device.
    pub fn handler_state(&self) -> XenbusState {
        if *self == Self::VBD3 || *self == Self::QDISK {
            XenbusState::Initialising
        } else {
            XenbusState::InitWait
        }
    }

    /// Tells whether the backend is a helper process that connects devices by itself: QEMU serves all devices of its
    /// guest and writes `connected` once it does (hw/block/xen-block.c, `xen_block_realize`).
    pub fn connects_itself(&self) -> bool {
        *self == Self::QDISK
    }

    /// Tells whether the handler needs a network interface that the kernel creates. Netback announces `InitWait` before
    /// it creates the interface (drivers/net/xen-netback/xenbus.c, `netback_probe`).
    pub fn needs_netdev(&self) -> bool {
        *self == Self::VIF
    }

    /// Returns the kind in the frontend's path: every disk is a `vbd` to the guest
    /// (tools/libs/light/libxl_device.c, `libxl__device_frontend_path`).
    pub fn frontend(&self) -> &str {
        if *self == Self::VBD3 || *self == Self::QDISK {
            "vbd"
        } else {
            &self.0
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Kind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(known) = [Self::VBD, Self::VIF, Self::VBD3, Self::QDISK]
            .into_iter()
            .find(|kind| kind.0 == text)
        {
            return Ok(known);
        }
        let fits = matches!(text.len(), 1..=KIND_MAX)
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if fits {
            Ok(Self(Cow::Owned(text.to_owned())))
        } else {
            Err(Error::Kind(shortened(text)))
        }
    }
}

impl TryFrom<String> for Kind {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.0.into_owned()
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DomId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match canonical(text) {
            Some(number) if number < u32::from(DOMID_FIRST_RESERVED) => Ok(Self(number as u16)),
            _ => Err(Error::DomId(shortened(text))),
        }
    }
}

impl fmt::Display for DevId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DevId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        canonical(text).map(Self).ok_or_else(|| Error::DevId(shortened(text)))
    }
}

/// Parses a number without sign or leading zeros, so that two texts never name the same device.
fn canonical(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// Shortens an untrusted text for an error message.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
