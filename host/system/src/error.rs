//! Error of a call on the host, shared by all traits. Its variants distinguish the operator's, the toolstack's and the
//! kernel's part.

use rustix::io::Errno;

/// Error of a call on the host. The message is one line, fit for `hotplug-error`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The operator has not granted it.
    #[error("{0}")]
    Denied(String),
    /// A malformed or unusable parameter.
    #[error("{key}: {cause}")]
    Invalid {
        /// Node name of the parameter: `params`, `vifname`, `mac`.
        key: &'static str,
        /// Reason.
        cause: String,
    },
    /// A file, device, interface or program that does not exist, or no longer.
    #[error("{0}")]
    NotFound(String),
    /// A file, device or name that something else uses.
    #[error("{0}")]
    Busy(String),
    /// A refusal by the kernel: the failed action and the kernel's error.
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
    /// Returns the error of the kernel for the action `what`.
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

    /// Returns the error of an unusable `params`.
    pub(crate) fn params(cause: impl Into<String>) -> Self {
        Self::Invalid {
            key: "params",
            cause: cause.into(),
        }
    }
}

/// Returns the C library's text, without the number that the standard library adds.
fn errno_text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    match text.rsplit_once(" (os error ") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
