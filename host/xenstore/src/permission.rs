//! Permissions of nodes.

use std::{fmt, str::FromStr};

/// Access of a domain to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// No access: `n`.
    None,
    /// Read access: `r`.
    Read,
    /// Write access: `w`.
    Write,
    /// Read and write access: `b`.
    Both,
}

impl Access {
    /// Returns whether it allows reading.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Returns whether it allows writing.
    pub fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }
}

/// Entry of a node's permissions, `r3` as text.
///
/// The first entry of a node names its owner, which has every right, and the access of the domains without an entry; each
/// other entry is for one domain (docs/misc/xenstore.txt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Permission {
    /// Domain.
    pub domid: u16,
    /// Access of the domain; in the first entry, access of the domains without an entry.
    pub access: Access,
}

/// Error for a text that is not a letter of `nrwb` and a domid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a permission is one of n, r, w, b followed by a domid")]
pub struct PermissionError;

impl Permission {
    const fn new(domid: u16, access: Access) -> Self {
        Self { domid, access }
    }

    /// Creates `n<domid>`: as first entry, an owner, and no access for other domains.
    pub const fn none(domid: u16) -> Self {
        Self::new(domid, Access::None)
    }

    /// Creates `r<domid>`.
    pub const fn read(domid: u16) -> Self {
        Self::new(domid, Access::Read)
    }

    /// Creates `w<domid>`.
    pub const fn write(domid: u16) -> Self {
        Self::new(domid, Access::Write)
    }

    /// Creates `b<domid>`.
    pub const fn both(domid: u16) -> Self {
        Self::new(domid, Access::Both)
    }

    /// Parses the bytes of a message.
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
    fn permission_is_a_letter_and_a_domid() {
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
