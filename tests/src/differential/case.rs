//! Case of a differential table: its steps and its permitted differences.

use crate::harness::Device;

/// Value of a node that is absent.
pub const ABSENT: &str = "<absent>";

/// Situation in which the original script and ours are compared.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Subject of the case, unique in its table.
    pub name: &'static str,
    /// Steps, in their order.
    pub steps: &'static [Step],
    /// All permitted differences between the results.
    pub differences: &'static [Difference],
}

/// Step of a case. In all texts `$D` is the directory of images, which the daemon is granted, `$O` one that it is not
/// granted, and `$N` a word that no other case has.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Runs shell commands, in the namespace.
    Sh(&'static str),
    /// Runs shell commands only for the original script: set-up that the daemon does not need.
    ShForOriginal(&'static str),
    /// Creates a guest's device in state 2, written as `xl` writes it but for these nodes. `\xff` in a value is that
    /// byte.
    Device(Device, &'static [(&'static str, &'static str)]),
    /// Writes or removes a node of a backend directory.
    Write(Device, &'static str, &'static str),
    /// Writes or removes any other node.
    WriteAt(&'static str, &'static str),
    /// Sets variables in the environment of the scripts that run from here on, such as `netdev=eth1`.
    Environment(&'static str),
    /// Lets udev run the scripts of vifs from here on, through `vif-setup` (xen-backend.rules).
    ByUdev,
    /// Runs the script of the device with these arguments. The original ends with this exit code.
    Run(Device, &'static str, i32),
    /// Writes `online` 0 and `state` 6, as when the guest closes the device and the toolstack detaches it.
    Close(Device),
    /// Removes the device's directories, as the toolstack does.
    Forget(Device),
    /// Installs a fake helper, such as `tap-ctl`, with its state in `$H/tap-ctl.d`. Without this step there is none.
    Helper(&'static str),
    /// Starts a real Open vSwitch with the bridge `ovsbr0`, and installs its `ovs-vsctl`.
    Switch,
    /// Connects another host to a bridge, with these addresses, such as `10.0.0.1/24`.
    Peer(&'static str, &'static str),
    /// Sends a datagram from a guest's vif to the peer, from and to these addresses with ports. The guest takes its
    /// address.
    Send(Device, &'static str, &'static str),
}

impl Step {
    /// Runs the device's script with `add` or `online`. The original ends with `code`.
    pub const fn add(device: Device, code: i32) -> Self {
        Self::Run(device, if device.is_vif() { "online type_if=vif" } else { "add" }, code)
    }

    /// Runs the device's script with `remove` or `offline`. The original ends with `code`.
    pub const fn remove(device: Device, code: i32) -> Self {
        Self::Run(
            device,
            if device.is_vif() {
                "offline type_if=vif"
            } else {
                "remove"
            },
            code,
        )
    }
}

/// Permitted difference between the original and ours.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Lines of the original alone. `*` matches anything.
    pub original: &'static [&'static str],
    /// Lines of ours alone.
    pub ours: &'static [&'static str],
    /// Reason why the difference is right.
    pub because: &'static str,
}

/// Returns true if a text matches a pattern, in which `*` matches anything.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut open = false;
    for part in parts {
        open = true;
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || (open && pattern.ends_with('*')) || (open && ends_later(pattern, rest))
}

/// Returns true if the last part of a pattern, which was found earlier in the text, also ends the text.
fn ends_later(pattern: &str, rest: &str) -> bool {
    pattern.rsplit('*').next().is_some_and(|last| rest.ends_with(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*b", "abb", true),
            ("*b", "abc", false),
            ("a*c", "abc", true),
            ("a*c", "abcd", false),
            ("*/x = *", "vbd/3/x = 1", true),
            ("*/x = *", "vbd/3/y = 1", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern:?} {text:?}");
        }
    }
}
