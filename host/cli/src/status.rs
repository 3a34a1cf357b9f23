//! The daemon's status as a table.

use std::{
    fmt::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use xenplug_control::{Backoff, Device, Status};

/// Formats the status: a line per device, with its held resources and its error below.
pub(crate) fn table(status: &Status) -> String {
    let mut text = String::new();
    let store = if status.store.connected {
        "connected to"
    } else {
        "NOT connected to"
    };
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "xenplugd {} in domain {} ({}), {store} {}; {}",
        status.version,
        status.domain,
        status.mode,
        status.store.endpoint,
        counted(status.devices.len(), "device"),
    );
    for plugin in &status.plugins {
        for backoff in &plugin.backoffs {
            let _ = writeln!(text, "{}", backing_off(&plugin.name, backoff));
        }
    }
    if status.devices.is_empty() {
        return text;
    }
    let rows: Vec<[String; 4]> = status
        .devices
        .iter()
        .map(|device| {
            [
                name(device),
                device.plugin.clone().unwrap_or_else(|| "-".to_owned()),
                device.state.clone(),
                since(device.since),
            ]
        })
        .collect();
    let titles = ["DEVICE", "PLUGIN", "STATE", "SINCE"].map(str::to_owned);
    let widths: Vec<usize> = (0..4)
        .map(|column| {
            rows.iter()
                .chain([&titles])
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut line = |row: &[String; 4], last: &str| {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}", width = *width))
            .collect();
        let _ = writeln!(text, "{}", format!("{}  {last}", cells.join("  ")).trim_end());
    };
    line(&titles, "HOLDS");
    for (row, device) in rows.iter().zip(&status.devices) {
        let mut details = device.held.clone();
        details.extend(device.error.iter().map(|error| format!("error: {error}")));
        let mut details = details.iter();
        line(row, details.next().map_or("", String::as_str));
        for more in details {
            line(&Default::default(), more);
        }
    }
    text
}

fn backing_off(plugin: &str, backoff: &Backoff) -> String {
    let left = Duration::from_secs(backoff.until.saturating_sub(now()));
    format!(
        "plugin {plugin} BACKS OFF from guest {} for another {}, after {} in a row, the last: {}",
        backoff.guest,
        humantime::format_duration(left),
        counted(backoff.failures as usize, "failure"),
        backoff.cause,
    )
}

/// Returns a device's name as in messages.
pub(crate) fn name(device: &Device) -> String {
    let tap = if device.emulated { "-emu" } else { "" };
    format!("{}/{}/{}{tap}", device.kind, device.frontend, device.devid)
}

fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Formats the time since then in its two largest units.
fn since(seconds: u64) -> String {
    let ago = humantime::format_duration(Duration::from_secs(now().saturating_sub(seconds))).to_string();
    ago.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Returns the seconds since the epoch.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use xenplug_control::{Plugin, Store};

    use super::*;

    #[test]
    fn table_shows_held_resources_and_errors() {
        let device = |devid, state: &str, held: &[&str], error: Option<&str>| Device {
            kind: "vbd".into(),
            frontend: 3,
            devid,
            emulated: false,
            vm: None,
            plugin: Some("phy".into()),
            state: state.into(),
            since: 0,
            held: held.iter().map(|text| (*text).to_owned()).collect(),
            error: error.map(str::to_owned),
        };
        let status = Status {
            version: "0.1.0".into(),
            mode: "driver-domain".into(),
            domain: 1,
            store: Store {
                endpoint: "/run/xenstored/socket".into(),
                connected: true,
            },
            plugins: vec![Plugin {
                name: "mine".into(),
                summary: String::new(),
                kinds: Vec::new(),
                scripts: Vec::new(),
                imports: Vec::new(),
                backoffs: vec![Backoff {
                    guest: "/vm/a".into(),
                    failures: 5,
                    until: 0,
                    cause: "the plugin crashed".into(),
                }],
            }],
            devices: vec![
                device(
                    51712,
                    "connected",
                    &["file 1:2 used alone", "loop0 on /srv/a.img"],
                    None,
                ),
                device(51728, "failed", &[], Some("phy: params: is missing")),
            ],
        };
        let table = table(&status);
        let mut lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 6, "{table}");
        assert!(lines[0].contains("2 devices"));
        assert_eq!(
            lines.remove(1),
            "plugin mine BACKS OFF from guest /vm/a for another 0s, after 5 failures in a row, the last: the plugin crashed"
        );
        assert!(
            lines[2].starts_with("vbd/3/51712  phy     connected") && lines[2].ends_with("used alone"),
            "{table}"
        );
        assert!(lines[3].trim_start().starts_with("loop0 on /srv/a.img"));
        assert!(lines[4].ends_with("error: phy: params: is missing"), "{table}");
    }
}
