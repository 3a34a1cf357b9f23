//! What a device asks for, checked before any plugin sees it: its script, and that its nodes are text.

use std::{collections::BTreeMap, sync::Arc};

use xenplug_runtime::{Device, Plugin};
use xenplug_xenbus::{Part, ScriptName};

use super::{Failure, Told};
use crate::{directory::Snapshot, host::Host};

/// Bytes of the longest value a plugin is given.
const VALUE_MAX: usize = 1024;

/// The plugin that serves a device, and the device as that plugin sees it.
pub(super) fn check(
    host: &Host,
    part: &Part,
    snapshot: &Snapshot,
    told: &Told,
) -> Result<(Arc<Plugin>, Device), Failure> {
    let plugins = host.plugins();
    let key = &part.device;
    // Until the plugin is known, the one that would serve the kind speaks, if there is just one.
    let speaker = match plugins.of_kind(&key.kind).collect::<Vec<_>>()[..] {
        [only] => only.plugin.name().to_owned(),
        _ => "xenplugd".to_owned(),
    };
    let refuse = |cause: String| Failure::new(&speaker, &cause);
    let script = snapshot
        .nodes
        .get("script")
        .ok_or_else(|| refuse("script: is missing".to_owned()))?;
    let script = std::str::from_utf8(script).map_err(|_| refuse("script: is not UTF-8".to_owned()))?;
    let script = ScriptName::parse(script).map_err(|error| refuse(error.to_string()))?;
    let plugin = plugins.find(&key.kind, script.as_str()).ok_or_else(|| {
        let known: Vec<&str> = plugins
            .of_kind(&key.kind)
            .flat_map(|s| s.scripts.iter().map(String::as_str))
            .collect();
        refuse(format!(
            "script: no plugin stands in for \"{script}\" of a {}; {}",
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
        backend: host.own,
        script,
        nodes,
        role: part.role,
        parameters: told.clone(),
        vms: snapshot.vms.clone(),
        vm: None,
        vm_name: None,
    };
    Ok((Arc::clone(plugin), device))
}

/// All values as text, or which one is not.
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
    fn a_value_that_is_no_text_is_named() {
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
