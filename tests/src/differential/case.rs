//! What a case is: a line of a table.

use crate::harness::Device;

/// In the place of a node's value: the node is not there.
pub const ABSENT: &str = "<absent>";

/// One situation that the original script and ours are put into.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is about. No two of a table have the same.
    pub name: &'static str,
    /// What happens, in this order.
    pub steps: &'static [Step],
    /// What is not the same afterwards, all of it.
    pub differences: &'static [Difference],
}

/// What happens in a case. In all texts `$D` is the directory of images, which the daemon is granted, `$O` one that it is
/// not, and `$N` a word that no other case has.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Shell commands, in the namespace.
    Sh(&'static str),
    /// The same, only where the original script is tried: what an operator has to set up for it alone.
    ShForOriginal(&'static str),
    /// A guest's device in state 2, written as `xl` writes it but for these nodes. `\xff` in a value is that byte.
    Device(Device, &'static [(&'static str, &'static str)]),
    /// A node of a backend's directory is written, or removed.
    Write(Device, &'static str, &'static str),
    /// Any other node is written, or removed.
    WriteAt(&'static str, &'static str),
    /// Variables in the environment of the scripts that are run from here on, such as `netdev=eth1`.
    Environment(&'static str),
    /// From here on it is udev that runs the scripts of vifs: through `vif-setup` (xen-backend.rules).
    ByUdev,
    /// The script of the device is run with these words, and the original ends with this exit code.
    Run(Device, &'static str, i32),
    /// As when the guest closes and the toolstack takes the device away: `online` 0, `state` 6.
    Close(Device),
    /// The toolstack removes the device's directories.
    Forget(Device),
    /// The stand-in for a helper, `tap-ctl` say, with its state in `$H/tap-ctl.d`: without this there is none.
    Helper(&'static str),
    /// A real Open vSwitch with the bridge `ovsbr0`, and its `ovs-vsctl`.
    Switch,
    /// Another machine on a bridge, with these addresses, such as `10.0.0.1/24`.
    Peer(&'static str, &'static str),
    /// The guest of a vif takes an address, and sends a datagram from there to the peer: address and port of both.
    Send(Device, &'static str, &'static str),
}

impl Step {
    /// `block add`, or `vif-bridge online`: the script of the device, and how the original ends.
    pub const fn add(device: Device, code: i32) -> Self {
        Self::Run(device, if device.is_vif() { "online type_if=vif" } else { "add" }, code)
    }

    /// `block remove`, or `vif-bridge offline`.
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

/// Something that is not the same with the original and with ours, and may be so.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Lines that are seen with the original alone. `*` stands for anything.
    pub original: &'static [&'static str],
    /// Lines that are seen with ours alone.
    pub ours: &'static [&'static str],
    /// Why that is right.
    pub because: &'static str,
}

/// Whether a text is as a pattern says, in which `*` stands for anything.
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

/// Whether the last part of a pattern, which was found too early, is at the end as well.
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
