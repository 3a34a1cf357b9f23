//! The work on worker threads: the handler and the release, from their input to their outcome.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;
use tracing::{debug, error, info, info_span};
use xenplug_runtime::{Connected, DeviceResources, Fault, Header};
use xenplug_xenbus::{Event, Identity};

use super::Driver;
use crate::{
    chain::Chain,
    device::{
        failure::Failure,
        job::{Finished, Job},
        observe::{Fingerprint, Snapshot},
        selection,
    },
    plugins::backoff::Obstacle,
    retry::{AGAIN, retry_store},
};

impl Driver {
    /// Runs the handler, now or after its plugin's backoff. Returns an event if it cannot run.
    pub(super) async fn run_handler(&mut self) -> Option<Event> {
        self.attempt.began = Instant::now();
        let failure = self.start_handler().await.err()?;
        self.fail(failure);
        Some(Event::HandlerFailed)
    }

    /// Asks the handler to end early. A handler that has not started has ended with that.
    pub(super) fn stop_handler(&mut self) -> Option<Event> {
        self.job.stop_handler();
        self.deadlines.cancel_handler_start().then_some(Event::HandlerFailed)
    }

    /// Prepares the handler's call and starts it on a worker thread, or sets a timer for that.
    async fn start_handler(&mut self) -> Result<(), Failure> {
        let link = self.directory.link();
        self.attempt.fingerprint = Fingerprint::of(link, &BTreeMap::new());
        let snapshot = match self.attempt.snapshot.take() {
            Some(snapshot) => snapshot,
            None => match self.late_snapshot().await? {
                Some(snapshot) => snapshot,
                // The next read finds that the directory is gone, or was recreated.
                None => {
                    self.deadlines.start_handler_after(AGAIN);
                    return Ok(());
                }
            },
        };
        self.attempt.fingerprint = Fingerprint::of(link, &snapshot.nodes);
        let identity = self.fsm.identity().cloned();
        let identity = identity.ok_or_else(|| unreadable("it has no identity"))?;
        let arguments = self.calls.arguments();
        let (own, plugins) = (self.context.daemon.own, self.context.plugins.current());
        let (plugin, mut device) = selection::select(&plugins, own, &self.instance, &snapshot, &arguments)?;
        self.attempt.plugin = Some(Arc::clone(&plugin));
        match self.context.plugins.backoffs.permit(&plugin, &guest(&identity)) {
            Ok(run) => self.attempt.run = Some(run),
            Err(Obstacle::Wait(until)) => {
                let (device, name) = (&self.instance, plugin.name());
                info!(%device, plugin = name, "{device}: waits, as {name} backs off from its guest");
                self.deadlines.start_handler_at(until.into());
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
            vif_type: self.instance.vif_type,
            parameters: arguments,
        };
        let resources = DeviceResources::begin(&self.context.daemon.journal, header)
            .map_err(|error| Failure::new(plugin.name(), &Chain(&error).to_string()))?;
        self.attempt.device = Some(Arc::clone(&device));
        // The semaphore is never closed. Changes during the wait are seen afterwards.
        let permit = Arc::clone(&self.context.handler_permits).acquire_owned().await.ok();
        let span = info_span!("connect", device = %self.instance, plugin = plugin.name());
        let workers = &self.context.daemon.workers;
        self.job = Job::handler(workers, plugin, device, resources, permit, span);
        Ok(())
    }

    /// Reads the snapshot of a device that a mere read of its state found ready. Its publication finds out whether it has
    /// changed since. A store that is away says nothing about the device, so the daemon waits for it as long as the
    /// scripts can wait.
    async fn late_snapshot(&self) -> Result<Option<Snapshot>, Failure> {
        let ends = self.calls.until();
        let draining = &self.context.daemon.draining;
        let waits = || !draining.is_cancelled() && ends.is_none_or(|until| Instant::now() + AGAIN < until);
        let read = retry_store(waits, || self.directory.snapshot()).await;
        let (_, snapshot) = read.map_err(|error| unreadable(&error.to_string()))?;
        Ok(snapshot)
    }

    /// Releases the held resources on a worker thread.
    pub(super) fn release(&mut self) -> Option<Event> {
        let Some(resources) = self.resources.take() else {
            return Some(Event::Released);
        };
        let plugin = self.attempt.plugin.clone().filter(|plugin| plugin.disconnects());
        // The call of `disconnect` is a courtesy, which a plugin in a long backoff does not get.
        let guest = guest(&resources.header().identity);
        let plugin = plugin.and_then(|plugin| match self.context.plugins.backoffs.permit(&plugin, &guest) {
            Err(Obstacle::Fail(_)) => None,
            Err(Obstacle::Wait(_)) => Some(plugin),
            Ok(run) => {
                self.attempt.run = Some(run);
                Some(plugin)
            }
        });
        let span = info_span!("disconnect", device = %self.instance, plugin = self.attempt.plugin_name());
        let disconnect = plugin.zip(self.attempt.device.take());
        self.job = Job::release(&self.context, disconnect, resources, span);
        None
    }

    /// Takes the outcome of the work on a worker thread.
    pub(super) fn finished(&mut self, finished: Finished) -> Event {
        match finished {
            Finished::Handler {
                resources,
                answer,
                in_time,
            } => self.handler_finished(resources, answer, in_time),
            Finished::Release {
                resources,
                failures,
                fault,
            } => {
                if let Some(fault) = &fault {
                    self.handler_failed(fault);
                }
                self.release_finished(resources, &failures)
            }
        }
    }

    fn handler_finished(
        &mut self,
        resources: DeviceResources,
        answer: Result<Connected, Fault>,
        in_time: bool,
    ) -> Event {
        // The failure of a late handler is published already, and is not its plugin's fault.
        let late = || Fault::Refused("the kernel came back from a call too late".to_owned());
        let answer = if in_time { answer } else { Err(late()) };
        let device = &self.instance;
        debug!(%device, "{device}: the handler returned after {} us", self.attempt.began.elapsed().as_micros());
        let resources = self.resources.insert(resources);
        self.attempt.fingerprint.link = resources.link().or(self.attempt.fingerprint.link);
        match answer {
            Ok(connected) => {
                self.attempt.succeeded(&self.context.plugins.backoffs);
                self.attempt.connection = connected.connection;
                self.attempt.script_lock = connected.script_lock;
                Event::HandlerDone
            }
            Err(fault) => {
                self.handler_failed(&fault);
                self.fail(Failure::of(self.attempt.plugin_name(), &fault));
                Event::HandlerFailed
            }
        }
    }

    fn release_finished(&mut self, resources: DeviceResources, failures: &[String]) -> Event {
        let (device, plugin) = (&self.instance, &resources.header().plugin);
        let event = if failures.is_empty() {
            info!(%device, plugin, "{device}: released");
            Event::Released
        } else {
            let failures = failures.join("; ");
            error!(%device, plugin, "{device}: cannot release everything, which is tried again: {failures}");
            self.failure = Some(Failure::new(plugin, &failures));
            self.deadlines.retry_release();
            Event::ReleaseFailed
        };
        self.resources = Some(resources);
        event
    }

    fn handler_failed(&mut self, fault: &Fault) {
        self.attempt
            .failed(&self.context.plugins.backoffs, &self.context.metrics, fault);
    }
}

/// Names the guest for whom a plugin's failures are counted: its virtual machine, or its domain where that is not known.
fn guest(identity: &Identity) -> String {
    let domain = identity.key.frontend;
    identity.vm.clone().unwrap_or_else(|| format!("/local/domain/{domain}"))
}

fn unreadable(cause: &str) -> Failure {
    Failure::new("xenplugd", &format!("cannot read the device: {cause}"))
}
