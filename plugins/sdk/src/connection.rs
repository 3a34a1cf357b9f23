//! Description of a handler, and nodes to publish.

use crate::{Connection, Description, Node, block::DeviceNumber};

impl Connection {
    /// Makes a connection without nodes. The daemon publishes `hotplug-status=connected` in any case.
    pub fn new() -> Self {
        Self {
            backend: Vec::new(),
            frontend: Vec::new(),
        }
    }

    /// Publishes a node in the backend directory, such as `physical-device`.
    pub fn backend(mut self, name: &str, value: impl Into<String>) -> Self {
        self.backend.push(Node {
            name: name.into(),
            value: value.into(),
        });
        self
    }

    /// Publishes a node in the frontend directory. Version 0.1 allows `mtu` only.
    pub fn frontend(mut self, name: &str, value: impl Into<String>) -> Self {
        self.frontend.push(Node {
            name: name.into(),
            value: value.into(),
        });
        self
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Description {
    /// Makes a description with a summary for people: the devices that the handler connects, in one line.
    pub fn new(summary: &str) -> Self {
        Self {
            summary: summary.into(),
            kinds: Vec::new(),
            scripts: Vec::new(),
            disconnects: false,
        }
    }

    /// Adds a kind of backend that the handler serves, such as `vbd`.
    pub fn kind(mut self, kind: &str) -> Self {
        self.kinds.push(kind.into());
        self
    }

    /// Adds a hotplug script that the handler replaces, such as `block`.
    pub fn script(mut self, script: &str) -> Self {
        self.scripts.push(script.into());
        self
    }

    /// Requests calls of [`Handler::disconnect`](crate::Handler::disconnect).
    pub fn with_disconnect(mut self) -> Self {
        self.disconnects = true;
        self
    }
}

/// Formats a value for `physical-device`: both numbers in hexadecimal (drivers/block/xen-blkback/xenbus.c,
/// `backend_changed`).
impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}:{:x}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_number_is_hexadecimal() {
        assert_eq!(DeviceNumber { major: 253, minor: 16 }.to_string(), "fd:10");
        assert_eq!(DeviceNumber { major: 7, minor: 0 }.to_string(), "7:0");
    }

    #[test]
    fn connection_keeps_the_order_of_its_nodes() {
        let connection = Connection::new()
            .backend("node", "/dev/loop0")
            .backend("physical-device", "7:0");
        let names: Vec<_> = connection.backend.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["node", "physical-device"]);
        assert!(connection.frontend.is_empty());
    }
}
