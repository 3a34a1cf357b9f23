//! Who may do what with a node.

use std::{fmt, str::FromStr};

/// What a domain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Nothing: `n`.
    None,
    /// Read: `r`.
    Read,
    /// Write: `w`.
    Write,
    /// Read and write: `b`.
    Both,
}

impl Access {
    /// Whether it allows reading.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether it allows writing.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// One entry of a node's permissions, `r3` as text.
///
/// The first entry of a node names its owner, who may do anything, and says what every domain may do that has no entry
/// of its own; the others each speak of one domain (docs/misc/xenstore.txt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// The domain.
    pub domid: u16,
    /// What it may do (for the first entry: what the domains not named may do).
    pub access: Access,
}

/// The text is not a letter of `nrwb` and a domain's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a permission is one of n, r, w, b and a domain's number")]
pub struct PermissionError;

impl Permission {
    /// An entry.
    pub const fn new(domid: u16, access: Access) -> Self {
        Self { domid, access }
    }

    /// `n<domid>`: as first entry, the owner, and nothing for the others.
    pub const fn none(domid: u16) -> Self {
        Self::new(domid, Access::None)
    }

    /// `r<domid>`.
    pub const fn read(domid: u16) -> Self {
        Self::new(domid, Access::Read)
    }

    /// `w<domid>`.
    pub const fn write(domid: u16) -> Self {
        Self::new(domid, Access::Write)
    }

    /// `b<domid>`.
    pub const fn both(domid: u16) -> Self {
        Self::new(domid, Access::Both)
    }

    /// From the bytes of a message.
    pub(crate) fn from_bytes(text: &[u8]) -> Option<Self> {
        std::str::from_utf8(text).ok()?.parse().ok()
    }
}

impl FromStr for Permission {
    type Err = PermissionError;

    fn from_str(text: &str) -> Result<Self, PermissionError> {
        let access = match text.as_bytes().first() {
            Some(b'n') => Access::None,
            Some(b'r') => Access::Read,
            Some(b'w') => Access::Write,
            Some(b'b') => Access::Both,
            _ => return Err(PermissionError),
        };
        let digits = &text[1..];
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PermissionError);
        }
        digits
            .parse()
            .map(|domid| Self { domid, access })
            .map_err(|_| PermissionError)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(to, "{letter}{}", self.domid)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_permission_is_a_letter_and_a_domain() {
        assert_eq!("b7".parse(), Ok(Permission::both(7)));
        for text in ["", "x1", "r", "r-1", "r+1", "r65536", "r1 ", "ä1"] {
            assert_eq!(text.parse::<Permission>(), Err(PermissionError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_permission_or_an_error(text: String) {
            if let Ok(permission) = text.parse::<Permission>() {
                prop_assert_eq!(permission.to_string().parse(), Ok(permission));
            }
        }
    }
}
