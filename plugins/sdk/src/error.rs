//! Constructors of errors.

use std::fmt;

use crate::{BadParam, Error};

impl Error {
    /// Makes the error of an unusable parameter `key`. The cause ends a sentence that the key begins: `is missing`,
    /// `` `x` is not a number ``.
    pub fn invalid(key: &str, cause: impl Into<String>) -> Self {
        Self::InvalidParams(BadParam {
            key: key.into(),
            cause: cause.into(),
        })
    }

    /// Adds the parameter `key` that led to the error: `params: /srv/a.img does not exist`. An error that names its
    /// parameter already stays as it is.
    #[must_use]
    pub fn of(self, key: &str) -> Self {
        let named = |text: String| format!("{key}: {text}");
        match self {
            Self::InvalidParams(param) => Self::InvalidParams(param),
            Self::Busy(text) => Self::Busy(named(text)),
            Self::NotFound(text) => Self::NotFound(named(text)),
            Self::Denied(text) => Self::Denied(named(text)),
            Self::Unavailable(text) => Self::Unavailable(named(text)),
            Self::Other(text) => Self::Other(named(text)),
        }
    }
}

/// Converts any other failure: `Err("…")?` in a handler.
impl From<&str> for Error {
    fn from(message: &str) -> Self {
        Self::Other(message.into())
    }
}

/// Converts any other failure: `Err(format!("…"))?` in a handler.
impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

/// Conversion of an error into that of a parameter: `mtu.parse().or_invalid("mtu")?`.
pub trait OrInvalid<T> {
    /// Returns the value, or [`Error::InvalidParams`] with this key and the error's text as the cause.
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
    fn parse_error_names_its_parameter() {
        assert_eq!("1500".parse::<u32>().or_invalid("mtu"), Ok(1500));
        assert_eq!(
            "x".parse::<u32>().or_invalid("mtu"),
            Err(Error::invalid("mtu", "invalid digit found in string"))
        );
    }

    #[test]
    fn error_names_its_parameter() {
        assert_eq!(
            Error::Denied("no".into()).of("params"),
            Error::Denied("params: no".into())
        );
        assert_eq!(
            Error::invalid("mode", "is missing").of("params"),
            Error::invalid("mode", "is missing")
        );
    }

    #[test]
    fn text_is_an_other_error() {
        fn fails() -> Result<(), Error> {
            Err("the moon is full")?
        }
        assert_eq!(fails(), Err(Error::Other("the moon is full".into())));
    }
}
