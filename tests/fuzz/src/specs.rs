//! xl's syntax for disks and vifs.

use xenplug_hotplug::Class;
use xenplug_toolstack::Spec;
use xenplug_xenbus::DevId;

/// Parses a specification of a disk and of a vif. An accepted one returns the same nodes each time and none twice; a
/// refused one has a message.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for class in [Class::Vbd, Class::Vif] {
        match Spec::parse(class, text) {
            Ok(spec) => {
                assert_eq!(spec.class(), class);
                let again = Spec::parse(class, text).expect("the specification was accepted");
                assert_eq!(nodes(&spec, fixed), nodes(&again, fixed));
                for nodes in nodes(&spec, |_| true) {
                    let mut names: Vec<_> = nodes.iter().map(|(name, _)| *name).collect();
                    names.sort_unstable();
                    names.dedup();
                    assert_eq!(names.len(), nodes.len(), "{text:?}: {nodes:?}");
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// Returns the nodes of both sides whose name `which` selects.
fn nodes(spec: &Spec, which: impl Fn(&str) -> bool) -> [Vec<(&'static str, String)>; 2] {
    let devid = spec.devid().unwrap_or(DevId(0));
    let mut sides = [spec.backend_nodes(devid), spec.frontend_nodes(devid)];
    for side in &mut sides {
        side.retain(|(name, _)| which(name));
    }
    sides
}

/// Returns whether a node has a fixed value: a vif without an address gets a random one.
fn fixed(name: &str) -> bool {
    name != "mac"
}
