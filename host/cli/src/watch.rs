//! `xenplug watch`: the devices and their changes as they happen.

mod screen;

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::{Duration, SystemTime},
};

use clap::Args;
use serde_json::json;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};
use xenplug_control::{Client, Device, Error, Status};

use crate::status;
use screen::Screen;

/// Long help of the command.
pub(crate) const ABOUT: &str = "\
Shows the devices and their changes until it is interrupted.

On a terminal it shows the table of `xenplug status` with the last events below it until Ctrl-C. Otherwise it prints a line
for each event: time, device, old and new state, plugin, held resources and error. With --json each event is an object on
a line of its own, with the device as in `xenplug status --json`.

It polls the daemon every --every; a shorter state may be missed.";

/// Events shown below the table.
const EVENTS: usize = 10;

/// `xenplug watch`.
#[derive(Args)]
pub(crate) struct Watch {
    /// Print a JSON object for each event.
    #[arg(long)]
    json: bool,
    /// Interval of polls.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "200ms")]
    every: Duration,
}

/// Error that ends the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Daemon(#[from] Error),
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Change of one device.
struct Change {
    device: Device,
    from: Option<String>,
    to: Option<String>,
}

impl Watch {
    /// Runs until the output is closed or, on a terminal, a signal comes. It waits for a daemon that goes away, and fails if
    /// there was none at first.
    pub(crate) async fn run(&self, client: &Client) -> Result<(), Failure> {
        let (mut known, mut events) = (BTreeMap::new(), Vec::new());
        let mut status = Some(client.status().await?);
        let mut screen = if self.json { None } else { Screen::take()? };
        let mut end = if screen.is_some() {
            Some(EndSignals::new()?)
        } else {
            None
        };
        loop {
            let at = Instant::now() + self.every;
            let now = devices(status.as_ref());
            // The devices of a daemon that is away are unknown.
            let changes = if status.is_some() {
                changes(&known, &now)
            } else {
                Vec::new()
            };
            for change in &changes {
                events.push(if self.json { change.json() } else { change.line() });
            }
            if let Some(screen) = &mut screen {
                events.drain(..events.len().saturating_sub(EVENTS));
                let table = status.as_ref().map_or("xenplugd is away\n".to_owned(), status::table);
                screen.show(&table, &events)?;
            } else if !events.is_empty() {
                write(&(std::mem::take(&mut events).join("\n") + "\n"))?;
            }
            if status.is_some() {
                known = now;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                () = EndSignals::received(&mut end) => return Ok(()),
            }
            status = client.status().await.ok();
        }
    }
}

/// Signals that end the screen. Without a screen they end the program by default.
struct EndSignals([Signal; 3]);

impl EndSignals {
    fn new() -> io::Result<Self> {
        let [interrupt, terminate, hangup] =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn received(end: &mut Option<Self>) {
        match end {
            None => std::future::pending().await,
            Some(Self([interrupt, terminate, hangup])) => tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            },
        }
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

type Devices = BTreeMap<String, Device>;

fn devices(status: Option<&Status>) -> Devices {
    let devices = status.into_iter().flat_map(|status| &status.devices);
    devices.map(|device| (status::name(device), device.clone())).collect()
}

/// Returns the devices with another state or error than before, and those that are gone.
fn changes(before: &Devices, now: &Devices) -> Vec<Change> {
    let state = |device: Option<&Device>| device.map(|device| device.state.clone());
    let changed = now.iter().filter_map(|(name, device)| {
        let was = before.get(name);
        let same = was.is_some_and(|was| (&was.state, &was.error) == (&device.state, &device.error));
        (!same).then(|| Change {
            device: device.clone(),
            from: state(was),
            to: state(Some(device)),
        })
    });
    let gone = before.iter().filter(|(name, _)| !now.contains_key(*name));
    let gone = gone.map(|(_, device)| Change {
        device: device.clone(),
        from: state(Some(device)),
        to: None,
    });
    changed.chain(gone).collect()
}

impl Change {
    fn line(&self) -> String {
        let state = |state: &Option<String>| state.clone().unwrap_or_else(|| "-".to_owned());
        let device = &self.device;
        let mut line = format!(
            "{} {} {} -> {}",
            time(),
            status::name(device),
            state(&self.from),
            state(&self.to)
        );
        let there = self.to.is_some();
        let details = device.plugin.iter().cloned();
        let details = details.chain(device.held.iter().filter(|_| there).cloned());
        for detail in details.chain(device.error.iter().map(|error| format!("error: {error}"))) {
            line.push_str("  ");
            line.push_str(&detail);
        }
        line
    }

    fn json(&self) -> String {
        json!({ "time": time(), "from": self.from, "to": self.to, "device": self.device }).to_string()
    }
}

/// Formats the present time in UTC.
fn time() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(devices: &[(u32, &str)]) -> Devices {
        let devices = devices.iter().map(|(devid, state)| Device {
            kind: "vbd".into(),
            frontend: 3,
            devid: *devid,
            emulated: false,
            vm: None,
            plugin: Some("phy".into()),
            state: (*state).into(),
            since: 0,
            held: vec!["loop0 on /srv/a.img".into()],
            error: None,
        });
        devices.map(|device| (status::name(&device), device)).collect()
    }

    #[test]
    fn new_changed_and_gone_devices_are_reported() {
        let before = known(&[(1, "connecting"), (2, "connected"), (3, "connected")]);
        let now = known(&[(1, "connected"), (3, "connected"), (4, "waiting")]);
        let lines: Vec<String> = changes(&before, &now).iter().map(Change::line).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        for (line, expected) in lines.iter().zip([
            " vbd/3/1 connecting -> connected  phy  loop0 on /srv/a.img",
            " vbd/3/4 - -> waiting  phy  loop0 on /srv/a.img",
            " vbd/3/2 connected -> -  phy",
        ]) {
            assert!(line.ends_with(expected), "{line}");
        }
    }
}
