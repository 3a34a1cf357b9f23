//! Why the machine did not do what was asked: one error for every trait, whose cases say whose fault it is.

/// Why the machine did not do what was asked. The message is one line, fit for `hotplug-error`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The operator has not granted it.
    #[error("{0}")]
    Denied(String),
    /// A malformed or unusable parameter.
    #[error("{key}: {cause}")]
    Invalid {
        /// Which parameter, by the name of its node: `params`, `vifname`, `mac`.
        key: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// It does not exist, or no longer.
    #[error("{0}")]
    NotFound(String),
    /// Something else uses it.
    #[error("{0}")]
    Busy(String),
    /// The kernel refused: what was tried, and its error.
    #[error("{what}: {source_text}")]
    Kernel {
        /// What was tried, such as `attach /dev/loop3`.
        what: String,
        /// The error number, if there was one.
        errno: Option<i32>,
        /// The error's text.
        source_text: String,
    },
}
