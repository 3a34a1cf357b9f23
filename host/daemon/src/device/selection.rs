//! Selection of the plugin for a device, and checks of the device's nodes before any plugin sees them.

use std::{collections::BTreeMap, sync::Arc};

use xenplug_runtime::{Device, Plugin};
use xenplug_xenbus::{DeviceInstance, DomId, Kind, ScriptName};

use super::{failure::Failure, observe::Snapshot, script_calls::ScriptArgs};
use crate::plugins::PluginSet;

/// Bytes of the longest value that a plugin is given.
const VALUE_MAX: usize = 1024;

/// Selects the plugin that serves a device, and makes the device as that plugin sees it.
pub(super) fn select(
    plugins: &PluginSet,
    own: DomId,
    instance: &DeviceInstance,
    snapshot: &Snapshot,
    arguments: &ScriptArgs,
) -> Result<(Arc<Plugin>, Device), Failure> {
    let key = &instance.device;
    // Until the plugin is known, the error names the one that would serve the kind, if there is just one.
    let speaker = match plugins.of_kind(&key.kind).collect::<Vec<_>>()[..] {
        [only] => only.plugin.name().to_owned(),
        _ => "xenplugd".to_owned(),
    };
    let refuse = |cause: String| Failure::new(&speaker, &cause);
    let script = script(&snapshot.nodes, &key.kind).map_err(refuse)?;
    let script = script_of_type(&snapshot.nodes, &script)
        .filter(|of_type| plugins.find(&key.kind, of_type.as_str()).is_some())
        .unwrap_or(script);
    let plugin = plugins.find(&key.kind, script.as_str()).ok_or_else(|| {
        let known: Vec<&str> = plugins
            .of_kind(&key.kind)
            .flat_map(|serving| serving.scripts.iter().map(String::as_str))
            .collect();
        refuse(format!(
            "script: no plugin serves \"{script}\" of a {}; {}",
            key.kind,
            if known.is_empty() {
                "none serves that kind".to_owned()
            } else {
                format!("known: {}", known.join(", "))
            }
        ))
    })?;
    let nodes = texts(&snapshot.nodes).map_err(|cause| Failure::new(plugin.name(), &cause))?;
    let device = Device {
        key: key.clone(),
        backend: own,
        script,
        nodes,
        vif_type: instance.vif_type,
        parameters: arguments.clone(),
        vms: snapshot.vms.clone(),
        vm: None,
        vm_name: None,
    };
    Ok((Arc::clone(plugin), device))
}

/// Returns the script that a device asks for.
fn script(nodes: &BTreeMap<String, Vec<u8>>, kind: &Kind) -> Result<ScriptName, String> {
    let script = match nodes.get("script") {
        Some(script) => std::str::from_utf8(script).map_err(|_| "script: is not UTF-8".to_owned())?,
        // udev runs a script of that name, and nobody writes the node (tools/hotplug/Linux/xen-backend.rules).
        None if kind.as_str() == "vscsi" => "vscsi",
        // No script runs for a qdisk either: libxl starts QEMU itself (tools/libs/light/libxl_device.c, `add_device`).
        None if *kind == Kind::QDISK => "qdisk",
        None => return Err("script: is missing".to_owned()),
    };
    ScriptName::parse(script).map_err(|error| error.to_string())
}

/// Returns the script to which `block` leaves a disk of another `type` (the end of tools/hotplug/Linux/block).
fn script_of_type(nodes: &BTreeMap<String, Vec<u8>>, script: &ScriptName) -> Option<ScriptName> {
    const OWN: [&str; 3] = ["", "phy", "file"];
    let r#type = std::str::from_utf8(nodes.get("type")?).ok()?;
    if script.as_str() != "block" || OWN.contains(&r#type) {
        return None;
    }
    ScriptName::parse(&format!("block-{type}")).ok()
}

/// Returns all values as text, or names the first that is not.
fn texts(nodes: &BTreeMap<String, Vec<u8>>) -> Result<BTreeMap<String, String>, String> {
    nodes
        .iter()
        .map(|(name, value)| {
            if value.len() > VALUE_MAX {
                return Err(format!("{name}: is longer than {VALUE_MAX} bytes"));
            }
            let value = std::str::from_utf8(value).map_err(|_| format!("{name}: is not UTF-8"))?;
            if value.chars().any(char::is_control) {
                return Err(format!("{name}: holds control characters"));
            }
            Ok((name.clone(), value.to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_of_another_type_gets_the_script_of_that_type() {
        for (given, r#type, expected) in [
            ("/etc/xen/scripts/block", Some("nbd"), Some("block-nbd")),
            ("block", Some("phy"), None),
            ("block", Some("file"), None),
            ("block", Some(""), None),
            ("block", Some("a/b"), None),
            ("block", None, None),
            ("block-iscsi", Some("nbd"), None),
        ] {
            let mut nodes = BTreeMap::from([("script".to_owned(), given.as_bytes().to_vec())]);
            nodes.extend(r#type.map(|r#type| ("type".to_owned(), r#type.as_bytes().to_vec())));
            let script = script(&nodes, &Kind::VBD).expect("it names one");
            let found = script_of_type(&nodes, &script);
            assert_eq!(found.as_ref().map(ScriptName::as_str), expected, "{given} {type:?}");
        }
        let nodes = BTreeMap::new();
        assert!(script(&nodes, &Kind::VBD).is_err());
        for named in ["vscsi", "qdisk"] {
            let script = script(&nodes, &named.parse().expect("a kind"));
            assert_eq!(script.map(|script| script.to_string()), Ok(named.to_owned()));
        }
    }

    #[test]
    fn value_that_is_no_text_is_named() {
        for (value, cause) in [
            (vec![b'x'; 1025], "params: is longer than 1024 bytes"),
            (vec![0xff, 0xfe], "params: is not UTF-8"),
            (b"a\nb".to_vec(), "params: holds control characters"),
            (b"a\0b".to_vec(), "params: holds control characters"),
        ] {
            let nodes = BTreeMap::from([("mode".to_owned(), b"w".to_vec()), ("params".to_owned(), value)]);
            assert_eq!(texts(&nodes), Err(cause.to_owned()));
        }
        let nodes = BTreeMap::from([("params".to_owned(), b"/srv/a.img".to_vec())]);
        assert_eq!(texts(&nodes).expect("it is text")["params"], "/srv/a.img");
    }
}
