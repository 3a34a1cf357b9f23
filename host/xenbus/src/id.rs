//! The numbers and names that make up a device: domain, device number, kind of backend.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::XenbusState;

/// The longest name of a kind, in bytes. Xen's own are at most seven; the store's limit is on whole paths.
const KIND_MAX: usize = 32;

/// Domain ids from here on do not name a domain (xen/include/public/xen.h, `DOMID_FIRST_RESERVED`).
const DOMID_FIRST_RESERVED: u16 = 0x7ff0;

/// Why a text is not a part of a device's name.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Not the number of a domain.
    #[error("{0:?} is not a domain id")]
    DomId(String),
    /// Not the number of a device.
    #[error("{0:?} is not a device id")]
    DevId(String),
    /// Not a kind of backend.
    #[error("{0:?} is not a kind of backend")]
    Kind(String),
    /// Not `KIND/DOMID/DEVID`.
    #[error("{0:?} is not a device: kind/domid/devid")]
    Device(String),
}

/// The number of a domain, below 0x7ff0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomId(pub u16);

/// The number of a device within its kind and frontend: 51712 for `xvda`, 0 for the first network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DevId(pub u32);

/// A kind of backend, the directory below `backend/`: 1 to 32 of `a-z`, `0-9`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kind(Cow<'static, str>);

impl Kind {
    /// A disk served by the kernel (blkback).
    pub const VBD: Kind = Kind(Cow::Borrowed("vbd"));
    /// A network card served by the kernel (netback).
    pub const VIF: Kind = Kind(Cow::Borrowed("vif"));
    /// A disk served by tapdisk (tapback).
    pub const VBD3: Kind = Kind(Cow::Borrowed("vbd3"));
    /// A disk served by QEMU.
    pub const QDISK: Kind = Kind(Cow::Borrowed("qdisk"));

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The backend's state at which its handler runs.
    ///
    /// The kernel's backends announce `InitWait` and then wait for what the handler sets up. Tapback and QEMU reach
    /// `InitWait` only after it, so theirs runs as soon as the toolstack has written the device.
    pub fn handler_state(&self) -> XenbusState {
        if *self == Self::VBD3 || *self == Self::QDISK {
            XenbusState::Initialising
        } else {
            XenbusState::InitWait
        }
    }

    /// Whether the backend is a helper that the handler starts, and that also does what scripts do for others: QEMU takes up
    /// all devices of its guest by itself, and writes `connected` when it has (hw/block/xen-block.c, `xen_block_realize`).
    pub fn connects_itself(&self) -> bool {
        *self == Self::QDISK
    }

    /// Whether the handler needs a network interface that the kernel makes: netback announces `InitWait` before it
    /// creates it (drivers/net/xen-netback/xenbus.c, `netback_probe`).
    pub fn needs_netdev(&self) -> bool {
        *self == Self::VIF
    }

    /// The kind by which the frontend knows the device: every disk is a `vbd` to the guest
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

/// A number as the store's paths have it: without sign or leading zeros, so that two texts never name the same device.
fn canonical(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

/// As much of a text that may come from anybody as an error message should repeat.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}
