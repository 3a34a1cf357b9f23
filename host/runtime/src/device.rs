//! A device as a handler sees it, and the connection that a handler returns.

use std::collections::BTreeMap;

use xenplug_xenbus::{DeviceInstance, DeviceKey, DomId, ScriptName, VifType};

use crate::{
    bindings::xen::hotplug::types,
    text::{clean, is_deceptive},
};

/// A device to connect: one snapshot of its backend directory, taken in one transaction, and the daemon's findings.
#[derive(Clone, Debug)]
pub struct Device {
    /// Kind, frontend domain and number.
    pub key: DeviceKey,
    /// The domain that serves it.
    pub backend: DomId,
    /// The hotplug script its configuration asks for.
    pub script: ScriptName,
    /// The nodes of its backend directory.
    pub nodes: BTreeMap<String, String>,
    /// The instance of it that is to be connected.
    pub vif_type: VifType,
    /// The arguments of the script call, such as libxl's.
    pub parameters: BTreeMap<String, String>,
    /// The `vm` node of the frontend domain, and of the domain it is a stub for.
    pub vms: Vec<String>,
    /// The `vm` node of the frontend domain, if this plugin may know it and this domain can read it.
    pub vm: Option<String>,
    /// The virtual machine's name, under the same conditions.
    pub vm_name: Option<String>,
}

impl Device {
    /// The device instance that is to be connected.
    pub fn instance(&self) -> DeviceInstance {
        DeviceInstance {
            device: self.key.clone(),
            vif_type: self.vif_type,
        }
    }

    pub(crate) fn to_guest(&self) -> types::Device {
        types::Device {
            kind: self.key.kind.as_str().to_owned(),
            frontend_id: self.key.frontend.0,
            backend_id: self.backend.0,
            devid: self.key.devid.0,
            script: self.script.as_str().to_owned(),
            nodes: list(&self.nodes),
            vif_type: match self.vif_type {
                VifType::Paravirtual => types::VifType::Paravirtual,
                VifType::Emulated => types::VifType::Emulated,
            },
            parameters: list(&self.parameters),
        }
    }
}

fn list(values: &BTreeMap<String, String>) -> Vec<types::Node> {
    values
        .iter()
        .map(|(name, value)| types::Node {
            name: name.clone(),
            value: value.clone(),
        })
        .collect()
}

/// The nodes that a handler asks to be published, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Nodes for the backend directory.
    pub backend: Vec<(String, String)>,
    /// Nodes for the frontend directory.
    pub frontend: Vec<(String, String)>,
}

/// A connection that the daemon does not publish.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// More nodes than a device has.
    #[error("asked to publish {0} nodes, more than {max}", max = Connection::NODES)]
    TooMany(usize),
    /// A name that no node can have.
    #[error("asked to publish a node with the malformed name \"{0}\"")]
    Name(String),
    /// A value that no node can have.
    #[error("asked to publish {0} with a value that is too long or holds control characters")]
    Value(String),
    /// A node that the daemon or the toolstack writes.
    #[error("asked to publish {0}, which is not the plugin's to write")]
    Reserved(String),
}

impl Connection {
    const NODES: usize = 32;
    const NAME: usize = 64;
    const VALUE: usize = 1024;
    /// Nodes of the state machine, and those that say which device it is.
    const RESERVED: [&str; 8] = [
        "state",
        "online",
        "hotplug-status",
        "hotplug-error",
        "frontend",
        "frontend-id",
        "script",
        "mode",
    ];
    /// Nodes a handler may ask for on the frontend's side.
    const FRONTEND: [&str; 1] = ["mtu"];

    pub(crate) fn from_guest(answer: types::Connection) -> Result<Self, DeviceError> {
        let total = answer.backend.len() + answer.frontend.len();
        if total > Self::NODES {
            return Err(DeviceError::TooMany(total));
        }
        Ok(Self {
            backend: Self::nodes(answer.backend, |name| !Self::RESERVED.contains(&name))?,
            frontend: Self::nodes(answer.frontend, |name| Self::FRONTEND.contains(&name))?,
        })
    }

    fn nodes(nodes: Vec<types::Node>, allowed: impl Fn(&str) -> bool) -> Result<Vec<(String, String)>, DeviceError> {
        nodes
            .into_iter()
            .map(|types::Node { name, value }| {
                let well_formed = (1..=Self::NAME).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
                if !well_formed {
                    Err(DeviceError::Name(clean(&name, Self::NAME)))
                } else if !allowed(&name) {
                    Err(DeviceError::Reserved(name))
                } else if value.len() > Self::VALUE || value.chars().any(is_deceptive) {
                    Err(DeviceError::Value(name))
                } else {
                    Ok((name, value))
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(backend: &[(&str, &str)], frontend: &[(&str, &str)]) -> Result<Connection, DeviceError> {
        let nodes = |list: &[(&str, &str)]| {
            list.iter()
                .map(|(name, value)| types::Node {
                    name: (*name).into(),
                    value: (*value).into(),
                })
                .collect()
        };
        Connection::from_guest(types::Connection {
            backend: nodes(backend),
            frontend: nodes(frontend),
        })
    }

    #[test]
    fn connection_with_a_node_of_others_is_refused() {
        assert!(answer(&[("physical-device", "7:0")], &[("mtu", "1500")]).is_ok());
        for (backend, frontend, error) in [
            (("state", "4"), None, DeviceError::Reserved("state".into())),
            (
                ("hotplug-status", "connected"),
                None,
                DeviceError::Reserved("hotplug-status".into()),
            ),
            (("a/b", "1"), None, DeviceError::Name("a/b".into())),
            (("", "1"), None, DeviceError::Name(String::new())),
            (("line", "a\nb"), None, DeviceError::Value("line".into())),
            (("reversed", "a\u{202e}b"), None, DeviceError::Value("reversed".into())),
            (("ok", "1"), Some(("state", "4")), DeviceError::Reserved("state".into())),
        ] {
            let frontend: Vec<_> = frontend.into_iter().collect();
            assert_eq!(answer(&[backend], &frontend), Err(error));
        }
        let many = vec![("n", "1"); 33];
        assert_eq!(answer(&many, &[]), Err(DeviceError::TooMany(33)));
        let long = "x".repeat(1025);
        assert_eq!(answer(&[("n", &long)], &[]), Err(DeviceError::Value("n".into())));
    }
}
