//! Endpoint of the store: a socket, or the kernel's device.

use std::{
    env, fmt, fs,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

const SOCKET: &str = "/run/xenstored/socket";
const DEVICE: &str = "/dev/xen/xenbus";

/// Endpoint of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Socket of a xenstored in this domain.
    Socket(PathBuf),
    /// The kernel's device for a xenstored in another domain.
    Device(PathBuf),
    /// A store in this process.
    #[cfg(feature = "server")]
    InProcess(crate::in_process::InProcess),
}

impl Endpoint {
    /// Returns the endpoint that libxenstore uses: `XENSTORED_PATH`, else `/run/xenstored/socket` if it exists, else
    /// `/dev/xen/xenbus`.
    pub fn from_env() -> Self {
        match env::var_os("XENSTORED_PATH") {
            Some(path) => Self::at(PathBuf::from(path)),
            None if Path::new(SOCKET).exists() => Self::Socket(SOCKET.into()),
            None => Self::Device(DEVICE.into()),
        }
    }

    /// Returns a device if the path is a character device, else a socket.
    pub fn at(path: PathBuf) -> Self {
        let device = fs::metadata(&path).is_ok_and(|file| file.file_type().is_char_device());
        if device { Self::Device(path) } else { Self::Socket(path) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) | Self::Device(path) => path.display().fmt(to),
            #[cfg(feature = "server")]
            Self::InProcess(store) => fmt::Debug::fmt(store, to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_device_is_the_device_and_others_a_socket() {
        for (path, device) in [("/dev/null", true), ("/", false), ("/not/there", false)] {
            let endpoint = Endpoint::at(path.into());
            assert_eq!(matches!(endpoint, Endpoint::Device(_)), device, "{endpoint}");
            assert_eq!(endpoint.to_string(), path);
        }
    }
}
