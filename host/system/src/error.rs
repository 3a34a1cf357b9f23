//! Failure of a call on the host: one error for every trait, whose cases say whose fault it is.

use rustix::io::Errno;

/// Failure of a call on the host. The message is one line, fit for `hotplug-error`.
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
        /// Reason.
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
        /// Action that failed, such as `attach /dev/loop3`.
        what: String,
        /// The error number, if there was one.
        errno: Option<i32>,
        /// The error's text.
        source_text: String,
    },
}

impl Error {
    /// The kernel refused `what`.
    pub(crate) fn kernel(what: impl Into<String>, errno: Errno) -> Self {
        Self::Kernel {
            what: what.into(),
            errno: Some(errno.raw_os_error()),
            source_text: errno_text(errno),
        }
    }

    /// As [`Error::kernel`], from an error of the standard library.
    pub(crate) fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(errno) => Self::kernel(what, errno),
            None => Self::Kernel {
                what: what.into(),
                errno: None,
                source_text: error.to_string(),
            },
        }
    }

    /// An unusable `params`.
    pub(crate) fn params(cause: impl Into<String>) -> Self {
        Self::Invalid {
            key: "params",
            cause: cause.into(),
        }
    }
}

/// The C library's words, without the number that the standard library adds.
fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
