//! What happens, line by line with its time, as one sees it who watches the store.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{
    harness::{Device, Kind},
    store::Store,
};

/// How long a step may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Lines, with the time since their chapter began.
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

    /// Somebody has done something, now.
    pub(super) fn step(&mut self, actor: &str, what: &str) {
        let time = self.start.elapsed().as_secs_f64() * 1e3;
        (self.say)(&format!("{time:>10.2}  {actor:<10} {what}"));
    }

    /// Does something, and tells what happens to a device then, until one of its nodes has a value or is gone.
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
        self.step("toolstack", "has asked for it");
        let until = Instant::now() + PATIENCE;
        let mut told = Vec::new();
        loop {
            let Some(event) = store.event(until.saturating_duration_since(Instant::now()))? else {
                let error = store.find(&format!("{backend}/hotplug-error"))?;
                bail!(
                    "{} is not {:?} after {PATIENCE:?}; hotplug-error: {error:?}",
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
            if let Some((actor, what)) = line.filter(|line| !told.contains(line)) {
                self.step(actor, &what);
                told.push((actor, what));
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

/// Who has done what when this node of a backend directory has come to this value.
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
        ("/state", Some("6")) => ("kernel", format!("{backend} has let go of it (state 6)")),
        ("/node", Some(node)) => ("xenplugd", format!("has attached {node}")),
        ("/physical-device", Some(number)) => ("xenplugd", format!("publishes physical-device={number}")),
        ("/hotplug-status", Some(status)) if !status.is_empty() => ("xenplugd", format!("hotplug-status={status}")),
        ("/hotplug-error", Some(error)) => ("xenplugd", format!("hotplug-error={error}")),
        ("", None) => (
            "xenplugd",
            "has given everything back and removed the device".to_owned(),
        ),
        _ => return None,
    })
}
