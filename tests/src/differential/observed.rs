//! Observable state after a case, as lines that are the same wherever the case ran.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::Result;
use serde_json::Value;

use crate::{
    harness::{Helper, Namespace, Switch, attached_below},
    store::Store,
};

/// MAC address that the scripts give to a port (xen-network-common.sh, `_setup_bridge_port`). The kernel chooses all
/// others at random.
const PORT_MAC: &str = "fe:ff:ff:ff:ff:ff";

/// Names for numbers and paths that differ between runs: `$D` for a directory, `<loop on $D/a.img>` for a device.
#[derive(Debug, Default)]
pub(super) struct Names {
    directories: Vec<(String, &'static str)>,
    /// Names of loop devices by path and by number, also of those that are gone.
    loops: BTreeMap<String, String>,
    /// Names of a helper's numbers.
    numbers: BTreeMap<String, String>,
}

impl Names {
    pub(super) fn of(directories: Vec<(String, &'static str)>) -> Self {
        Self {
            directories,
            ..Self::default()
        }
    }

    /// Replaces paths and numbers in a text by their names.
    pub(super) fn plain(&self, text: &str) -> String {
        if let Some(name) = self.loops.get(text) {
            return name.clone();
        }
        let mut text = text.to_owned();
        for (directory, name) in &self.directories {
            text = text.replace(directory, name);
        }
        self.numbered(&text)
    }

    /// Replaces whole numbers in a text by their names.
    fn numbered(&self, text: &str) -> String {
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(|sign: char| sign.is_ascii_digit()) {
            let (before, from) = rest.split_at(at);
            let (number, after) = from.split_at(from.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(from.len()));
            plain.push_str(before);
            plain.push_str(self.numbers.get(number).map_or(number, String::as_str));
            rest = after;
        }
        plain + rest
    }

    /// Learns the numbers and devices of a helper.
    pub(super) fn learn_of(&mut self, helper: &Helper) {
        for line in helper.lines("numbers") {
            if let Some((number, what)) = line.split_once(' ') {
                self.numbers.insert(number.to_owned(), format!("<{what}>"));
            }
        }
        for (index, device) in helper.devices().into_iter().enumerate() {
            self.loops
                .insert(device, format!("<device {index} of {}>", helper.name()));
        }
    }

    /// Learns the loop devices on files below a directory.
    pub(super) fn learn(&mut self, directory: &Path) -> Result<()> {
        for one in attached_below(directory)? {
            let file = self.plain(one.backing.trim_end_matches(" (deleted)"));
            let device = one.device.display().to_string();
            if let Ok(number) = fs::read_to_string(sysfs(&device, "dev")) {
                let (major, minor) = number.trim_end().split_once(':').unwrap_or_default();
                let number: Vec<u32> = [major, minor].iter().flat_map(|text| text.parse()).collect();
                if let [major, minor] = number[..] {
                    self.loops.insert(
                        format!("{major:x}:{minor:x}"),
                        format!("<number of the loop on {file}>"),
                    );
                }
            }
            self.loops.insert(device, format!("<loop on {file}>"));
        }
        Ok(())
    }
}

/// Adds a line for each node of devices and guests.
pub(super) fn nodes(store: &mut Store, names: &Names, lines: &mut Vec<String>) -> Result<()> {
    let mut nodes = store.tree("/local/domain")?;
    nodes.extend(store.tree("/vm")?);
    for (path, value) in nodes {
        let path = path
            .strip_prefix("/local/domain/0/backend/")
            .or_else(|| path.strip_prefix("/local/domain/"))
            .unwrap_or(&path);
        let value = match path.rsplit('/').next() {
            Some("hotplug-error") => "<text>".to_owned(),
            _ => names.plain(&value),
        };
        lines.push(format!("node {path} = {value}"));
    }
    Ok(())
}

/// Adds lines for the loop devices on files below a directory, with their settings.
pub(super) fn loops(directory: &Path, names: &Names, lines: &mut Vec<String>) -> Result<()> {
    for one in attached_below(directory)? {
        let device = one.device.display().to_string();
        let fact = |file: &str| fs::read_to_string(sysfs(&device, file)).unwrap_or_default();
        let backing = names.plain(&one.backing);
        lines.push(format!("loop on {backing}"));
        for (file, word) in [
            ("ro", "read-only"),
            ("loop/autoclear", "autoclear"),
            ("loop/dio", "direct I/O"),
            ("loop/partscan", "partitions"),
        ] {
            if fact(file).trim_end() == "1" {
                lines.push(format!("loop on {backing}: {word}"));
            }
        }
        let offset = fact("loop/offset");
        if !matches!(offset.trim_end(), "" | "0") {
            lines.push(format!("loop on {backing}: from {}", offset.trim_end()));
        }
    }
    Ok(())
}

fn sysfs(device: &str, file: &str) -> String {
    format!("/sys/block/{}/{file}", device.trim_start_matches("/dev/"))
}

/// Adds lines for links, addresses and routes. Omits what the kernel does for IPv6 by itself, at its own time.
pub(super) fn network(namespace: &Namespace, lines: &mut Vec<String>) -> Result<()> {
    for link in namespace.facts("address show")?.as_array().into_iter().flatten() {
        let name = text(&link["ifname"]);
        if name == "lo" {
            continue;
        }
        lines.push(format!("link {name}: MTU {}", link["mtu"]));
        if link["flags"]
            .as_array()
            .is_some_and(|flags| flags.iter().any(|flag| flag == "UP"))
        {
            lines.push(format!("link {name}: up"));
        }
        if let Some(master) = link["master"].as_str() {
            lines.push(format!("link {name}: port of {master}"));
        }
        if link["address"] == PORT_MAC {
            lines.push(format!("link {name}: MAC {PORT_MAC}"));
        }
        for address in link["addr_info"].as_array().into_iter().flatten() {
            if address["scope"] != "link" {
                lines.push(format!(
                    "link {name}: address {}/{}",
                    text(&address["local"]),
                    address["prefixlen"]
                ));
            }
        }
        let proxy = format!("/proc/sys/net/ipv4/conf/{name}/proxy_arp");
        if namespace
            .within(|| fs::read_to_string(proxy))?
            .is_ok_and(|on| on.trim_end() == "1")
        {
            lines.push(format!("link {name}: proxy_arp"));
        }
    }
    for family in ["-4", "-6"] {
        for route in namespace
            .facts(&format!("{family} route show"))?
            .as_array()
            .into_iter()
            .flatten()
        {
            if route["protocol"] == "kernel" {
                continue;
            }
            let parts = ["dst", "gateway", "dev", "prefsrc", "metric", "scope"]
                .iter()
                .filter(|key| !route[**key].is_null())
                .map(|key| format!("{key} {}", text(&route[*key])));
            lines.push(format!("route {}", parts.collect::<Vec<_>>().join(" ")));
        }
    }
    Ok(())
}

/// Adds a line for each call of a helper, without their order, which the fake helper checks itself. Omits calls about
/// NBD devices of other hosts.
pub(super) fn calls(helper: &Helper, names: &Names, lines: &mut Vec<String>) {
    let own = helper.devices();
    for call in helper.calls() {
        let mut words = call.split(' ');
        if words.any(|word| word.starts_with("/dev/nbd") && !own.iter().any(|own| own == word)) {
            continue;
        }
        let words: Vec<String> = call.split(' ').map(|word| names.plain(word)).collect();
        lines.push(format!("{}: {}", helper.name(), words.join(" ")));
    }
}

/// Adds lines for the ports of the switch's bridge, with their settings.
pub(super) fn ports(switch: &Switch, lines: &mut Vec<String>) -> Result<()> {
    for port in switch.tell(&["list-ports", "ovsbr0"])?.lines() {
        let get = |table: &str, column: &str| switch.tell(&["get", table, port, column]);
        lines.push(format!("port {port}: tag {}", get("port", "tag")?));
        lines.push(format!("port {port}: trunks {}", get("port", "trunks")?));
        lines.push(format!("port {port}: {}", get("interface", "external_ids")?));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns the lines as a set; a line that occurs several times carries its count.
pub(super) fn counted(lines: Vec<String>) -> BTreeSet<String> {
    let mut counts = BTreeMap::<String, usize>::new();
    for line in lines {
        *counts.entry(line).or_default() += 1;
    }
    let say = |(line, count)| if count == 1 { line } else { format!("{line} x {count}") };
    counts.into_iter().map(say).collect()
}
