//! Port that a vif's `bridge` describes, and its columns in `ovs-vsctl` calls.

use std::str::FromStr;

use xenplug_sdk::Error;

/// Largest VLAN (column `tag` in ovs-vswitchd.conf.db(5): 0 to 4095).
const VLAN_MAX: u16 = 4095;

/// A port of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) bridge: String,
    tag: Option<u16>,
    trunks: Vec<u16>,
}

impl Port {
    /// Returns the setting of the column `tag`: `tag=5`, or `tag=[]` for none.
    pub(crate) fn tag(&self) -> String {
        self.tag.map_or_else(|| "tag=[]".to_owned(), |tag| format!("tag={tag}"))
    }

    /// Returns the setting of the column `trunks`, such as `trunks=6,7`, or the empty set for all VLANs.
    pub(crate) fn trunks(&self) -> String {
        match self.trunks.as_slice() {
            [] => "trunks=[]".to_owned(),
            trunks => format!(
                "trunks={}",
                trunks.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
            ),
        }
    }
}

impl FromStr for Port {
    type Err = Error;

    /// Parses `NAME[.TAG][:TRUNK[:TRUNK]...]`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || {
            Error::invalid(
                "bridge",
                format!("`{text}` is not of the form NAME[.TAG][:TRUNK[:TRUNK]...]"),
            )
        };
        let vlan = |text: &str| match text.bytes().all(|digit| digit.is_ascii_digit()) {
            true => text.parse().ok().filter(|vlan| *vlan <= VLAN_MAX).ok_or_else(malformed),
            false => Err(malformed()),
        };
        let mut parts = text.split(':');
        let (bridge, tag) = match parts.next().unwrap_or_default().split_once('.') {
            Some((bridge, tag)) => (bridge, Some(vlan(tag)?)),
            None => (text.split(':').next().unwrap_or_default(), None),
        };
        let trunks = parts.map(vlan).collect::<Result<_, _>>()?;
        // ovs-vsctl would take a name that begins with `-` for an option.
        if bridge.is_empty() || bridge.starts_with('-') {
            return Err(malformed());
        }
        Ok(Self {
            bridge: bridge.to_owned(),
            tag,
            trunks,
        })
    }
}

/// Formats an external id for ovs-vsctl: both sides are JSON strings (ovs-vsctl(8), "string"). A slash is escaped by
/// its number, because no pattern of a grant matches a slash.
pub(crate) fn external_id(key: &str, value: &str) -> String {
    let mut text = format!("external-ids:\"{key}\"=\"");
    for sign in value.chars() {
        match sign {
            '"' | '\\' => text.extend(['\\', sign]),
            '/' => text.push_str("\\u002f"),
            sign => text.push(sign),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridge_may_have_tag_and_trunks() {
        for (text, bridge, tag, trunks) in [
            ("ovsbr0", "ovsbr0", "tag=[]", "trunks=[]"),
            ("ovsbr0.5", "ovsbr0", "tag=5", "trunks=[]"),
            ("ovsbr0:6", "ovsbr0", "tag=[]", "trunks=6"),
            ("ovsbr0:6:7", "ovsbr0", "tag=[]", "trunks=6,7"),
            ("ovsbr0.5:6:7", "ovsbr0", "tag=5", "trunks=6,7"),
            ("b.4095", "b", "tag=4095", "trunks=[]"),
        ] {
            let port: Port = text.parse().expect(text);
            assert_eq!((&*port.bridge, &*port.tag(), &*port.trunks()), (bridge, tag, trunks));
        }
        for text in [
            "",
            ".5",
            ":6",
            "ovsbr0.",
            "ovsbr0:",
            "ovsbr0.x",
            "ovsbr0.5.6",
            "ovsbr0:6.5",
            "ovsbr0:6:",
            "ovsbr0.+5",
            "ovsbr0.4096",
            "ovsbr0.99999",
            "--all",
        ] {
            assert!(
                matches!(text.parse::<Port>(), Err(Error::InvalidParams(bad)) if bad.key == "bridge"),
                "{text}"
            );
        }
    }

    #[test]
    fn external_id_is_one_string() {
        for (value, expected) in [
            ("guest-3", r#"external-ids:"k"="guest-3""#),
            (r#"a"b\c d"#, r#"external-ids:"k"="a\"b\\c d""#),
            ("a/b", r#"external-ids:"k"="a\u002fb""#),
        ] {
            assert_eq!(external_id("k", value), expected);
        }
    }
}
