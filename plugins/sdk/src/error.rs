//! Making errors.

use std::fmt;

use crate::{BadParam, Error};

impl Error {
    /// The device's parameter `key` cannot be used. The cause ends a sentence that the key begins: `is missing`,
    /// `` `x` is not a number ``.
    pub fn invalid(key: &str, cause: impl Into<String>) -> Self {
        Self::InvalidParams(BadParam {
            key: key.into(),
            cause: cause.into(),
        })
    }
}

/// What is none of the other cases: `Err("…")?` in a handler.
impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Other(message.into())
    }
}

/// What is none of the other cases: `Err(format!("…"))?` in a handler.
impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

/// Blames a parameter for what went wrong with it: `mtu.parse().or_invalid("mtu")?`.
pub trait OrInvalid<T> {
    /// The value, or [`Error::InvalidParams`] with this key and the error's text as the cause.
    fn or_invalid(self, key: &str) -> Result<T, Error>;
}

impl<T, E: fmt::Display> OrInvalid<T> for Result<T, E> {
    fn or_invalid(self, key: &str) -> Result<T, Error> {
        self.map_err(|cause| Error::invalid(key, cause.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parse_error_is_blamed_on_its_parameter() {
        assert_eq!("1500".parse::<u32>().or_invalid("mtu"), Ok(1500));
        assert_eq!(
            "x".parse::<u32>().or_invalid("mtu"),
            Err(Error::invalid("mtu", "invalid digit found in string"))
        );
    }

    #[test]
    fn text_is_an_error_of_no_other_case() {
        fn fails() -> Result<(), Error> {
            Err("the moon is full")?
        }
        assert_eq!(fails(), Err(Error::Other("the moon is full".into())));
    }
}
