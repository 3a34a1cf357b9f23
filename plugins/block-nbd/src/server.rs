//! Server and export that `params` names.

use xenplug_sdk::Error;

/// Default port of a server (NBD protocol, doc/uri.md).
const PORT: &str = "10809";

/// A server and its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) address: ServerAddress,
    /// Name of the export, empty for the default one.
    pub(crate) export: String,
}

/// Address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerAddress {
    Tcp { host: String, port: String },
    Unix { path: String },
}

impl Server {
    /// Parses `params`: `nbd://HOST[:PORT][/EXPORT]`, `nbd+unix:///[EXPORT]?socket=PATH`, `HOST:PORT[/EXPORT]`, or
    /// `HOST PORT`, the older form.
    pub(crate) fn parse(params: &str) -> Result<Self, Error> {
        let invalid = || {
            Error::invalid(
                "params",
                format!("`{params}` is not nbd://HOST[:PORT][/EXPORT], nbd+unix:///[EXPORT]?socket=PATH or HOST PORT"),
            )
        };
        let server = if let Some(rest) = params.strip_prefix("nbd+unix:///") {
            let (export, path) = rest.split_once("?socket=").ok_or_else(invalid)?;
            Self {
                address: ServerAddress::Unix { path: path.into() },
                export: export.into(),
            }
        } else {
            let rest = params.strip_prefix("nbd://").unwrap_or(params);
            let (address, export) = rest.split_once('/').unwrap_or((rest, ""));
            let (host, port) = match address.split_once(' ') {
                Some((host, port)) => (host, port),
                None => split_port(address),
            };
            Self {
                address: ServerAddress::Tcp {
                    host: host.into(),
                    port: port.into(),
                },
                export: export.into(),
            }
        };
        let word = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace);
        let good = match &server.address {
            ServerAddress::Tcp { host, port } => word(host) && port.parse::<u16>().is_ok(),
            ServerAddress::Unix { path } => word(path) && path.starts_with('/'),
        };
        if good && (server.export.is_empty() || word(&server.export)) {
            Ok(server)
        } else {
            Err(invalid())
        }
    }

    /// Returns the arguments of `nbd-client` that connect a device to the export.
    pub(crate) fn arguments(&self, device: &str) -> Vec<String> {
        let mut arguments: Vec<String> = match &self.address {
            ServerAddress::Tcp { host, port } => vec![host.clone(), port.clone()],
            ServerAddress::Unix { path } => vec!["-unix".into(), path.clone()],
        };
        arguments.push(device.into());
        if !self.export.is_empty() {
            arguments.extend(["-N".into(), self.export.clone()]);
        }
        arguments
    }
}

/// Splits an address into host and port. An IPv6 address is in brackets.
fn split_port(address: &str) -> (&str, &str) {
    if let Some((host, rest)) = address.strip_prefix('[').and_then(|address| address.split_once(']')) {
        return (host, rest.strip_prefix(':').unwrap_or(PORT));
    }
    address.split_once(':').unwrap_or((address, PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_name_a_server_and_an_export() {
        for (params, arguments) in [
            ("nbd://san/disk", &["san", "10809", "D", "-N", "disk"][..]),
            ("nbd://san:2000", &["san", "2000", "D"]),
            ("nbd://[fd00::1]:2000/a/b", &["fd00::1", "2000", "D", "-N", "a/b"]),
            ("nbd://[fd00::1]", &["fd00::1", "10809", "D"]),
            ("10.0.0.1:2000/disk", &["10.0.0.1", "2000", "D", "-N", "disk"]),
            ("10.0.0.1 2000", &["10.0.0.1", "2000", "D"]),
            ("nbd+unix:///?socket=/run/nbd.sock", &["-unix", "/run/nbd.sock", "D"]),
            (
                "nbd+unix:///disk?socket=/run/nbd.sock",
                &["-unix", "/run/nbd.sock", "D", "-N", "disk"],
            ),
        ] {
            assert_eq!(Server::parse(params).unwrap().arguments("D"), arguments, "{params}");
        }
    }

    #[test]
    fn params_that_name_no_server_are_refused() {
        for params in [
            "",
            "nbd://",
            "nbd://:2000",
            "san:port",
            "san 2000 x",
            "--help 2000",
            "san:2000/-persist",
            "san:2000/a b",
            "nbd+unix:///disk",
            "nbd+unix:///disk?socket=nbd.sock",
        ] {
            assert!(Server::parse(params).is_err(), "{params}");
        }
    }
}
