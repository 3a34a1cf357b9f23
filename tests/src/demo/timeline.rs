//! Timeline of the store events of a device, one line for each.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    harness::{Device, Kind},
    store::Store,
};

/// Time limit of a step.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Printer of lines with the time since their chapter began.
pub(super) struct Timeline<'a> {
    say: &'a mut dyn FnMut(&str),
    start: Instant,
}

impl<'a> Timeline<'a> {
    pub(super) fn new(say: &'a mut dyn FnMut(&str)) -> Self {
        Self {
            say,
            start: Instant::now(),
        }
    }

    /// Begins a chapter, at time 0.
    pub(super) fn chapter(&mut self, title: &str) {
        (self.say)(&format!("\n{title}"));
        self.start = Instant::now();
    }

    /// Prints an action with its actor and the time.
    pub(super) fn step(&mut self, actor: &str, what: &str) {
        let time = self.start.elapsed().as_secs_f64() * 1e3;
        (self.say)(&format!("{time:>10.2}  {actor:<10} {what}"));
    }

    /// Runs an action, and prints what happens to a device until one of its nodes has a value or is gone.
    pub(super) fn follow(
        &mut self,
        store: &mut Store,
        device: &Device,
        action: impl FnOnce() -> Result<()>,
        end: (&str, Option<&str>),
    ) -> Result<()> {
        let backend = device.backend();
        store.watch(&backend, "timeline")?;
        while store.event(Duration::from_millis(10))?.is_some() {}
        self.start = Instant::now();
        action()?;
        self.step("toolstack", "requests it");
        let until = Instant::now() + TIMEOUT;
        let mut shown = Vec::new();
        loop {
            let Some(event) = store.event(until.saturating_duration_since(Instant::now()))? else {
                let error = store.find(&format!("{backend}/hotplug-error"))?;
                bail!(
                    "{} is not {:?} after {TIMEOUT:?}; hotplug-error: {error:?}",
                    end.0,
                    end.1
                );
            };
            let value = store.find(&event.path)?;
            let line = explain(
                device,
                event.path.strip_prefix(&backend).unwrap_or_default(),
                value.as_deref(),
            );
            if let Some((actor, what)) = line.filter(|line| !shown.contains(line)) {
                self.step(actor, &what);
                shown.push((actor, what));
            }
            if (event.path.as_str(), value.as_deref()) == end {
                break;
            }
        }
        store.unwatch(&backend, "timeline")?;
        while store.event(Duration::ZERO)?.is_some() {}
        Ok(())
    }
}

/// Describes a change of a node in a backend directory, with its actor.
fn explain(device: &Device, node: &str, value: Option<&str>) -> Option<(&'static str, String)> {
    let backend = match device.kind {
        Kind::Vbd => "blkback",
        Kind::Vbd3 => "tapback",
        Kind::Vscsi => "scsiback",
        Kind::Vif => "netback",
    };
    Some(match (node, value) {
        ("/state", Some("2")) => ("kernel", format!("{backend} waits for it to be set up (state 2)")),
        ("/state", Some("4")) => ("kernel", format!("{backend} and the guest are connected (state 4)")),
        ("/state", Some("6")) => ("kernel", format!("{backend} has released it (state 6)")),
        ("/node", Some(node)) => ("xenplugd", format!("has attached {node}")),
        ("/physical-device", Some(number)) => ("xenplugd", format!("publishes physical-device={number}")),
        ("/hotplug-status", Some(status)) if !status.is_empty() => ("xenplugd", format!("hotplug-status={status}")),
        ("/hotplug-error", Some(error)) => ("xenplugd", format!("hotplug-error={error}")),
        ("", None) => ("xenplugd", "has released everything and removed the device".to_owned()),
        _ => return None,
    })
}
