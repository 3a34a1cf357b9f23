//! What worker threads do for a device: its handler and its release, from what they are given to what comes of them.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;
use tracing::{debug, error, info, info_span};
use xenplug_runtime::{DeviceResources, Fault, Header};
use xenplug_xenbus::{Event, Identity};

use super::{
    Failure, Task,
    job::{Finished, Job},
    parameters,
};
use crate::{
    directory::{Fingerprint, Snapshot},
    plugins::backoff::Obstacle,
    retry::{AGAIN, patiently},
};

impl Task {
    /// Has the handler run, now or when its plugin may. If it cannot, that is an event.
    pub(super) async fn run_handler(&mut self) -> Option<Event> {
        self.began = Instant::now();
        let failure = self.start_handler().await.err()?;
        self.failed(failure);
        Some(Event::HandlerFailed)
    }

    /// PendingCalls the handler to end early. One that has not begun has ended with that.
    pub(super) fn stop_handler(&mut self) -> Option<Event> {
        if let Some(job) = &self.job {
            job.stop_handler();
        }
        self.paused.take().map(|_| Event::HandlerFailed)
    }

    /// Prepares the handler's call and starts it on a worker thread; or, if its plugin is to be left alone for a while,
    /// notes until when.
    async fn start_handler(&mut self) -> Result<(), Failure> {
        let link = self.directory.link();
        self.marks = Fingerprint::of(link, &BTreeMap::new());
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => match self.late_snapshot().await? {
                Some(snapshot) => snapshot,
                // It is about to be seen that it has gone; or it was made anew, and is looked at as it is then.
                None => {
                    self.paused = Some(Instant::now() + AGAIN);
                    return Ok(());
                }
            },
        };
        self.marks = Fingerprint::of(link, &snapshot.nodes);
        let identity = self.identity().ok_or_else(|| unseen("it has no identity"))?;
        let told = self.calls.told();
        let (plugin, mut device) = parameters::check(&self.host, &self.part, &snapshot, &told)?;
        self.plugin = Some(Arc::clone(&plugin));
        match self.host.plugins.backoffs.permit(&plugin, &guest(&identity)) {
            Ok(run) => self.run = Some(run),
            Err(Obstacle::Wait(until)) => {
                info!(device = %self.part, plugin = plugin.name(), "waits, as the plugin has just failed this guest");
                self.paused = Some(until.into());
                return Ok(());
            }
            Err(Obstacle::Fail(cause)) => return Err(Failure::new(plugin.name(), &cause)),
        }
        if plugin.grants().guest {
            device.vm = identity.vm.clone();
            device.vm_name = self.directory.vm_name().await;
        }
        let device = Arc::new(device);
        let header = Header {
            identity,
            plugin: plugin.name().to_owned(),
            vms: snapshot.vms,
            introduced: snapshot.introduced,
            vif_type: self.part.vif_type,
            parameters: told,
        };
        let resources = DeviceResources::begin(&self.host.journal, header)
            .map_err(|error| Failure::new(plugin.name(), &error.to_string()))?;
        self.device = Some(Arc::clone(&device));
        // Never closed, so only waiting can happen here; what changes meanwhile is seen afterwards.
        self.permit = Arc::clone(&self.host.events).acquire_owned().await.ok();
        let span = info_span!("connect", device = %self.part, plugin = plugin.name());
        self.job = Some(Job::handler(&self.host.workers, plugin, device, resources, span));
        Ok(())
    }

    /// The snapshot of a device that was found ready by a mere look. If it has changed since, its publication will find
    /// out. A store that is away is waited for, as long as they can wait who have asked: it says nothing of the device.
    async fn late_snapshot(&self) -> Result<Option<Snapshot>, Failure> {
        let ends = self.calls.until();
        let waits = || !self.host.draining.is_cancelled() && ends.is_none_or(|until| Instant::now() + AGAIN < until);
        let examined = patiently(waits, || self.directory.snapshot()).await;
        let (_, snapshot) = examined.map_err(|error| unseen(&error.to_string()))?;
        Ok(snapshot)
    }

    /// Gives back what is held, on a worker thread.
    pub(super) fn release(&mut self) -> Option<Event> {
        let Some(resources) = self.resources.take() else {
            return Some(Event::Released);
        };
        let plugin = self.plugin.clone().filter(|plugin| plugin.disconnects());
        // That it may say something before the end is a courtesy, which a plugin in a long backoff has lost.
        let whose = guest(&resources.header().identity);
        let plugin = plugin.and_then(|plugin| match self.host.plugins.backoffs.permit(&plugin, &whose) {
            Err(Obstacle::Fail(_)) => None,
            Err(Obstacle::Wait(_)) => Some(plugin),
            Ok(run) => {
                self.run = Some(run);
                Some(plugin)
            }
        });
        let span = info_span!("disconnect", device = %self.part, plugin = self.plugin_name());
        let disconnects = plugin.zip(self.device.take());
        self.job = Some(Job::release(&self.host, disconnects, resources, span));
        None
    }

    /// Takes what a worker thread brings back.
    pub(super) fn ended(&mut self, done: Finished) -> Event {
        let in_time = self.permit.take().is_some();
        match done {
            Finished::Handler(resources, answer) => {
                // Of one that is late it was told that it has failed, which is not its plugin's fault.
                let late = || Fault::Refused("the kernel came back from a call too late".to_owned());
                let answer = if in_time { answer } else { Err(late()) };
                debug!(device = %self.part, micros = self.began.elapsed().as_micros() as u64, "the handler has returned");
                let resources = self.resources.insert(resources);
                self.marks.link = resources.link().or(self.marks.link);
                if answer.is_err() {
                    resources.unlock();
                }
                match answer {
                    Ok(connection) => {
                        self.praise();
                        self.connection = connection;
                        Event::HandlerDone
                    }
                    Err(fault) => {
                        self.blame(&fault);
                        let plugin = self.plugin_name();
                        self.failed(Failure::of(&plugin, &fault));
                        Event::HandlerFailed
                    }
                }
            }
            Finished::Release(resources, failures, fault) if failures.is_empty() => {
                fault.iter().for_each(|fault| self.blame(fault));
                info!(device = %self.part, plugin = resources.header().plugin, "released");
                self.resources = Some(resources);
                Event::Released
            }
            Finished::Release(resources, failures, fault) => {
                fault.iter().for_each(|fault| self.blame(fault));
                error!(device = %self.part, failures = failures.join("; "), "not everything could be given back");
                self.failure = Some(Failure::new(&resources.header().plugin, &failures.join("; ")));
                self.resources = Some(resources);
                self.again = Some(Instant::now() + self.pauses.next());
                Event::ReleaseFailed
            }
        }
    }

    /// The plugin has done what it was to do.
    fn praise(&mut self) {
        if let (Some(plugin), Some(run)) = (&self.plugin, self.run.take()) {
            self.host.plugins.backoffs.succeeded(plugin, &run);
        }
    }

    /// Reports a fault of the plugin itself. A fault of its device says nothing about it.
    fn blame(&mut self, fault: &Fault) {
        if let (Some(plugin), Some(run)) = (&self.plugin, self.run.take())
            && fault.is_the_plugins()
        {
            self.host.metrics.fault(plugin.name());
            self.host.plugins.backoffs.failed(plugin, &run, fault);
        }
    }
}

/// Whose plugin's faults are counted together: a virtual machine, or its domain where that is not known.
fn guest(identity: &Identity) -> String {
    let domain = identity.key.frontend;
    identity.vm.clone().unwrap_or_else(|| format!("/local/domain/{domain}"))
}

fn unseen(cause: &str) -> Failure {
    Failure::new("xenplugd", &format!("the device could not be read: {cause}"))
}
