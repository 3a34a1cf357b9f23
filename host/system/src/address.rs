//! Names of network interfaces, hardware addresses and prefixes, parsed from text.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Error;

/// The name of a network interface: 1 to 15 bytes, no `/`, `:`, white space or control characters, not `.` or `..`
/// (net/core/dev.c, `dev_valid_name`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// An address with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prefix {
    /// The address.
    pub address: IpAddr,
    /// Bits: at most 32 for IPv4, 128 for IPv6.
    pub length: u8,
}

/// Reason why a text cannot be parsed. The message continues a sentence that starts with the parameter's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// An empty name.
    #[error("is empty")]
    Empty,
    /// A name over 15 bytes (IFNAMSIZ, with its NUL, is 16).
    #[error("{0:?} is longer than the 15 bytes that the name of a network interface may have")]
    NameTooLong(String),
    /// A name with a character that the kernel refuses.
    #[error(
        "{0:?} cannot be the name of a network interface: \"/\", \":\", white space and control characters are not allowed in it, nor are \".\" and \"..\""
    )]
    NameForm(String),
    /// A text that is not six pairs of hexadecimal digits.
    #[error(
        "{0:?} is not a hardware address, which is six pairs of hexadecimal digits with colons such as 00:16:3e:12:34:56"
    )]
    Mac(String),
    /// A text that is no address, or a length that is too large for it.
    #[error("{0:?} is not an IP address, or one with a prefix length such as 10.0.0.0/24 or 2001:db8::/64")]
    Prefix(String),
}

impl ParseError {
    /// Converts to the error of the parameter `key`.
    pub fn of(&self, key: &'static str) -> Error {
        Error::Invalid {
            key,
            cause: self.to_string(),
        }
    }
}

impl IfName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for IfName {
    type Error = ParseError;

    fn try_from(name: String) -> Result<Self, ParseError> {
        let refused =
            |character: char| matches!(character, '/' | ':') || character.is_whitespace() || character.is_control();
        match name.as_str() {
            "" => Err(ParseError::Empty),
            long if long.len() > 15 => Err(ParseError::NameTooLong(shortened(long))),
            "." | ".." => Err(ParseError::NameForm(name)),
            odd if odd.contains(refused) => Err(ParseError::NameForm(name)),
            _ => Ok(Self(name)),
        }
    }
}

impl FromStr for IfName {
    type Err = ParseError;

    fn from_str(name: &str) -> Result<Self, ParseError> {
        Self::try_from(name.to_owned())
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

impl AsRef<str> for IfName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = || match text {
            "" => ParseError::Empty,
            _ => ParseError::Mac(shortened(text)),
        };
        let mut bytes = [0; 6];
        let mut pairs = text.split(':');
        for byte in &mut bytes {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = pair
                .and_then(|pair| u8::from_str_radix(pair, 16).ok())
                .ok_or_else(refused)?;
        }
        if pairs.next().is_some() {
            Err(refused())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl Prefix {
    /// Returns the prefix of one address: 32 or 128 bits.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: bits(address),
        }
    }

    /// Clears the bits after the prefix: 10.0.0.0/24 for 10.0.0.7/24.
    #[must_use]
    pub fn network(self) -> Self {
        let spare = u32::from(bits(self.address).saturating_sub(self.length));
        let address = match self.address {
            IpAddr::V4(address) => IpAddr::V4((u32::from(address) & u32::MAX.checked_shl(spare).unwrap_or(0)).into()),
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & u128::MAX.checked_shl(spare).unwrap_or(0)).into()),
        };
        Self {
            address,
            length: self.length,
        }
    }

    /// Tells whether an address is within the prefix.
    pub fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self { address, ..self }.network() == self.network()
    }
}

impl FromStr for Prefix {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refused = || match text {
            "" => ParseError::Empty,
            _ => ParseError::Prefix(shortened(text)),
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| refused())?;
        let length = match length {
            // The standard library would accept "+8" too.
            Some(length) if !length.bytes().all(|digit| digit.is_ascii_digit()) => return Err(refused()),
            Some(length) => length
                .parse()
                .ok()
                .filter(|length| *length <= bits(address))
                .ok_or_else(refused)?,
            None => bits(address),
        };
        Ok(Self { address, length })
    }
}

impl TryFrom<String> for Prefix {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

/// Number of bits of an address.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Cuts a text to 40 characters, so that a guest cannot make a message long.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_name_follows_the_kernels_rules() {
        for good in ["a", "vif1.0", "vif1.0-emu", "xenbr0", "123456789012345", "ü"] {
            assert_eq!(good.parse::<IfName>().map(String::from).as_deref(), Ok(good));
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "a\n",
            "a\0b",
            "\u{1b}[1m",
            "1234567890123456",
            "üüüüüüüü",
        ] {
            assert!(bad.parse::<IfName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn error_message_stays_short() {
        let long = "x".repeat(65536);
        for error in [
            long.parse::<IfName>().expect_err("too long"),
            long.parse::<Mac>().expect_err("no address"),
            long.parse::<Prefix>().expect_err("no address"),
        ] {
            assert!(error.to_string().len() < 200);
        }
    }

    #[test]
    fn mac_round_trips_through_text() {
        let mac: Mac = "00:16:3E:00:0a:ff".parse().expect("well-formed");
        assert_eq!(mac, Mac([0, 0x16, 0x3e, 0, 0x0a, 0xff]));
        assert_eq!(mac.to_string(), "00:16:3e:00:0a:ff");
        for bad in [
            "",
            "00:16:3e:00:0a",
            "00:16:3e:00:0a:ff:00",
            "00:16:3e:00:0a:fg",
            "0:16:3e:00:0a:ff",
            "00:16:3e:00:0a:+f",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefix_round_trips_through_text() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.0/24", "10.0.0.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("2001:DB8::/64", "2001:db8::/64"),
        ] {
            assert_eq!(
                text.parse::<Prefix>().map(|prefix| prefix.to_string()).as_deref(),
                Ok(expected)
            );
        }
        for bad in [
            "",
            "10.0.0",
            "10.0.0.1/33",
            "::/129",
            "10.0.0.1/",
            "10.0.0.1/+8",
            "10.0.0.1/-1",
            "10.0.0.1/8/8",
            "x/8",
            " 10.0.0.1",
        ] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefix_contains_addresses_by_its_bits() {
        for (prefix, address, expected) in [
            ("10.0.0.7/24", "10.0.0.255", true),
            ("10.0.0.7/24", "10.0.1.0", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::", false),
            ("::/0", "ffff::", true),
            ("2001:db8::1/128", "2001:db8::1", true),
            ("2001:db8::1/128", "2001:db8::2", false),
        ] {
            let prefix: Prefix = prefix.parse().expect("well-formed");
            assert_eq!(
                prefix.contains(address.parse().expect("well-formed")),
                expected,
                "{prefix} {address}"
            );
        }
    }
}
