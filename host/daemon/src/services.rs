//! Looking after the helpers that go on: what they say, whether they run, and what the store says of whom they serve.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::sleep,
};
use tracing::warn;
use xenplug_runtime::Backends;
use xenplug_xenbus::{DeviceKey, DomId, Kind, XenbusState};

use crate::{directory, dispatch::root, host::Host};

/// How often they are looked after: a guest whose disks are gone learns of it within this time.
const EVERY: Duration = Duration::from_millis(500);

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question from a thread that may block, or something to be done for it.
pub(crate) enum Question {
    TakenUp(DeviceKey, mpsc::SyncSender<Result<bool, String>>),
    Ended(DomId, mpsc::SyncSender<()>),
}

/// Asks the task that speaks to the store.
#[derive(Clone)]
pub(crate) struct Teller(UnboundedSender<Question>);

/// Where questions are put, and where they come out.
pub(crate) fn questions() -> (Teller, UnboundedReceiver<Question>) {
    let (teller, told) = unbounded_channel();
    (Teller(teller), told)
}

impl Backends for Teller {
    fn taken_up(&self, device: &DeviceKey) -> Result<bool, String> {
        let (answer, answered) = mpsc::sync_channel(1);
        let unknown = || "xenstore does not tell whether the device was taken up".to_owned();
        self.0
            .send(Question::TakenUp(device.clone(), answer))
            .map_err(|_| unknown())?;
        answered.recv_timeout(PATIENCE).map_err(|_| unknown())?
    }

    fn ended(&self, guest: DomId) {
        let (done, heard) = mpsc::sync_channel(1);
        if self.0.send(Question::Ended(guest, done)).is_ok() {
            // A store that is away keeps a node of no importance.
            let _ = heard.recv_timeout(PATIENCE);
        }
    }
}

/// Answers the questions, for as long as the daemon runs.
pub(crate) async fn answer(host: Arc<Host>, mut told: UnboundedReceiver<Question>) {
    while let Some(question) = told.recv().await {
        // Who asked may have given up.
        match question {
            Question::TakenUp(device, answer) => {
                let _ = answer.send(taken_up(&host, &device).await);
            }
            Question::Ended(guest, done) => {
                if let Err(error) = directory::forget_device_model(&host, guest).await {
                    warn!(guest = guest.0, %error, "what the guest's QEMU wrote about itself could not be removed");
                }
                let _ = done.send(());
                // Nobody closes any more what it had taken up.
                host.registry
                    .wake_all(|part| part.device.kind == Kind::QDISK && part.device.frontend == guest);
            }
        }
    }
}

async fn taken_up(host: &Host, device: &DeviceKey) -> Result<bool, String> {
    let state = format!("{}/{device}/state", root(host));
    let state = state.parse().expect("a path of numbers and a checked kind is a path");
    match host.client.read(&state).await {
        Ok(state) => {
            let state = XenbusState::parse(&String::from_utf8_lossy(&state));
            Ok(!matches!(state, XenbusState::Initialising | XenbusState::Unknown))
        }
        Err(error) => Err(format!("xenstore does not tell whether it was taken up: {error}")),
    }
}

/// Looks after all of them, for as long as the daemon runs.
pub(crate) async fn tend(host: Arc<Host>) {
    while !host.draining.is_cancelled() {
        sleep(EVERY).await;
        if host.services.is_empty() {
            continue;
        }
        let (services, process) = (Arc::clone(&host.services), Arc::clone(&host.system.process));
        // A panic on a worker thread ends the daemon, see `main`.
        let lost = host.workers.run(move || services.tend(process.as_ref())).await;
        let lost = lost.unwrap_or_default();
        host.registry.wake_all(|part| lost.contains(part));
    }
}
