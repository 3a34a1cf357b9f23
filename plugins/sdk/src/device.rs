//! Access to a device's nodes and parameters, with errors that name the key.

use crate::{Device, Error, Node, VifType};

impl Device {
    /// Makes a device for a unit test: the first of its kind, of domain 1, with these nodes.
    pub fn sample(kind: &str, nodes: &[(&str, &str)]) -> Self {
        Self {
            kind: kind.into(),
            frontend_id: 1,
            backend_id: 0,
            devid: 0,
            script: String::new(),
            nodes: list(nodes),
            vif_type: VifType::Paravirtual,
            parameters: Vec::new(),
        }
    }

    /// Sets the type and the parameters of a script call, for a unit test.
    pub fn called_with(self, vif_type: VifType, parameters: &[(&str, &str)]) -> Self {
        Self {
            vif_type,
            parameters: list(parameters),
            ..self
        }
    }

    /// Returns the value of a node, which may be empty.
    pub fn node(&self, key: &str) -> Option<&str> {
        self.nodes
            .iter()
            .find(|node| node.name == key)
            .map(|node| node.value.as_str())
    }

    /// Returns the value of a parameter of the script call.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        let parameter = self.parameters.iter().find(|parameter| parameter.name == key);
        parameter.map(|parameter| parameter.value.as_str())
    }

    /// Returns the value of an optional node, or else the parameter with its name, as a script does with
    /// `xenstore_read_default "$XENBUS_PATH/bridge" "$bridge"`.
    pub fn setting(&self, key: &str) -> Result<Option<&str>, Error> {
        Ok(self.optional(key)?.or_else(|| self.parameter(key)))
    }

    /// Returns the value of a required node. A missing or empty one is an error of the guest's configuration.
    pub fn required(&self, key: &str) -> Result<&str, Error> {
        self.optional(key)?.ok_or_else(|| Error::invalid(key, "is missing"))
    }

    /// Returns the value of an optional node. An empty one is an error.
    pub fn optional(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.node(key) {
            Some("") => Err(Error::invalid(key, "is empty")),
            value => Ok(value),
        }
    }

    /// Reads a node that the toolstack writes as `1` or `0`. A missing one is `0`.
    pub fn flag(&self, key: &str) -> Result<bool, Error> {
        match self.optional(key)? {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(other) => Err(Error::invalid(key, format!("`{other}` is neither 0 nor 1"))),
        }
    }
}

fn list(values: &[(&str, &str)]) -> Vec<Node> {
    let node = |(name, value): &(&str, &str)| Node {
        name: (*name).into(),
        value: (*value).into(),
    };
    values.iter().map(node).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_wins_over_script_argument() {
        let device = Device::sample("vif", &[("bridge", "br0"), ("vifname", "")]).called_with(
            VifType::Paravirtual,
            &[("bridge", "br1"), ("ip", "10.0.0.1"), ("vifname", "web")],
        );
        assert_eq!(device.setting("bridge"), Ok(Some("br0")));
        assert_eq!(device.setting("ip"), Ok(Some("10.0.0.1")));
        assert_eq!(device.setting("netdev"), Ok(None));
        assert_eq!(device.setting("vifname"), Err(Error::invalid("vifname", "is empty")));
        assert_eq!(
            (device.parameter("bridge"), device.parameter("mac")),
            (Some("br1"), None)
        );
    }

    #[test]
    fn missing_or_empty_required_node_is_refused() {
        let device = Device::sample("vbd", &[("params", "/dev/sda"), ("mode", "")]);
        assert_eq!(device.required("params"), Ok("/dev/sda"));
        assert_eq!(device.required("mode"), Err(Error::invalid("mode", "is empty")));
        assert_eq!(device.required("script"), Err(Error::invalid("script", "is missing")));
    }

    #[test]
    fn empty_optional_node_is_refused() {
        let device = Device::sample("vbd", &[("vifname", "web"), ("bridge", "")]);
        assert_eq!(device.optional("vifname"), Ok(Some("web")));
        assert_eq!(device.optional("ip"), Ok(None));
        assert_eq!(device.optional("bridge"), Err(Error::invalid("bridge", "is empty")));
    }

    #[test]
    fn flag_is_one_zero_or_absent() {
        let device = Device::sample("vbd", &[("on", "1"), ("off", "0"), ("yes", "yes"), ("empty", "")]);
        assert_eq!(device.flag("on"), Ok(true));
        assert_eq!(device.flag("off"), Ok(false));
        assert_eq!(device.flag("missing"), Ok(false));
        assert_eq!(
            device.flag("yes"),
            Err(Error::invalid("yes", "`yes` is neither 0 nor 1"))
        );
        assert_eq!(device.flag("empty"), Err(Error::invalid("empty", "is empty")));
    }
}
