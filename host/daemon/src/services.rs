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
use xenplug_runtime::{Claim, HelperKey, SharedResources, StoreQueries};
use xenplug_xenbus::{AfterRelease, DeviceInstance, DeviceKey, Mode, Phase, WriteOutcome, XenbusState};
use xenplug_xenstore::Error;

use crate::{
    context::DaemonContext,
    directory::{self, Directory},
    dispatch::root,
    foreign_disks,
};

/// How often they are looked after: a guest whose disks are gone learns of it within this time.
const EVERY: Duration = Duration::from_millis(500);

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question from a thread that may block, or something to be done for it.
pub(crate) enum Question {
    TakenUp(DeviceKey, mpsc::SyncSender<Result<bool, String>>),
    Startable(DeviceKey, mpsc::SyncSender<Result<(), String>>),
    Ended(HelperKey, mpsc::SyncSender<()>),
}

/// Passes questions of worker threads on to the tasks that speak to the store.
struct Bridge {
    helpers: UnboundedSender<Question>,
    /// In dom0, where original scripts may plug devices as well.
    disks: Option<UnboundedSender<foreign_disks::Question>>,
}

/// The state that devices share, and where its questions about helpers and about foreign disks come out.
pub(crate) fn shared(
    mode: Mode,
) -> (
    Arc<SharedResources>,
    UnboundedReceiver<Question>,
    UnboundedReceiver<foreign_disks::Question>,
) {
    let (helpers, told) = unbounded_channel();
    let (disks, asked) = unbounded_channel();
    let disks = (mode == Mode::Dom0).then_some(disks);
    (Arc::new(SharedResources::new(Bridge { helpers, disks })), told, asked)
}

impl Bridge {
    fn ask<T>(&self, question: impl FnOnce(mpsc::SyncSender<Result<T, String>>) -> Question) -> Result<T, String> {
        let (answer, answered) = mpsc::sync_channel(1);
        let unknown = || "xenstore does not tell whether the device was taken up".to_owned();
        self.helpers.send(question(answer)).map_err(|_| unknown())?;
        answered.recv_timeout(PATIENCE).map_err(|_| unknown())?
    }
}

impl StoreQueries for Bridge {
    fn foreign_users(&self, major: u32, minor: u32) -> Result<Vec<Claim>, String> {
        match &self.disks {
            Some(disks) => foreign_disks::ask(disks, (major, minor), PATIENCE),
            None => Ok(Vec::new()),
        }
    }

    fn backend_started(&self, device: &DeviceKey) -> Result<bool, String> {
        self.ask(|answer| Question::TakenUp(device.clone(), answer))
    }

    fn may_start_helper(&self, device: &DeviceKey) -> Result<(), String> {
        self.ask(|answer| Question::Startable(device.clone(), answer))
    }

    fn helper_ended(&self, role: &HelperKey) {
        let (done, heard) = mpsc::sync_channel(1);
        if self.helpers.send(Question::Ended(role.clone(), done)).is_ok() {
            // A store that is away for longer loses what guests write as well.
            let _ = heard.recv_timeout(PATIENCE);
        }
    }
}

/// Answers the questions, for as long as the daemon runs.
pub(crate) async fn answer(host: Arc<DaemonContext>, mut told: UnboundedReceiver<Question>) {
    while let Some(question) = told.recv().await {
        // Who asked may have given up.
        match question {
            Question::TakenUp(device, answer) => {
                let _ = answer.send(taken_up(&host, &device).await);
            }
            Question::Startable(device, answer) => {
                let _ = answer.send(startable(&host, &device).await);
            }
            Question::Ended(role, done) => {
                if let Err(error) = ended(&host, &role).await {
                    let HelperKey { helper, guest, .. } = role;
                    warn!(helper, guest = guest.0, %error, "its end could not be told to all whom it served");
                }
                let _ = done.send(());
            }
        }
    }
}

/// Tells the devices that a helper had taken up, and that nobody closes any more, that it has ended. They may be more than
/// those whose handlers took part in it.
async fn ended(host: &Arc<DaemonContext>, role: &HelperKey) -> Result<(), Error> {
    directory::forget_device_model(host, role.guest).await?;
    let error = format!("{}: {} has ended, which had taken it up", role.plugin, role.helper);
    let all = root(host).join(&format!("{}/{}", role.kind, role.guest))?;
    let devices = match host.client.directory(&all).await {
        Err(error) if error.is_not_found() => return Ok(()),
        devices => devices?,
    };
    for devid in devices.iter().filter_map(|name| name.parse().ok()) {
        let device = DeviceKey {
            kind: role.kind.clone(),
            frontend: role.guest,
            devid,
        };
        let part = DeviceInstance::main(device.clone());
        if matches!(
            host.registry.phase(&part),
            Some(Phase::Releasing {
                then: AfterRelease::PublishFailure
            })
        ) {
            // It tells more of why.
            continue;
        }
        let directory = Directory::of(host, part, Phase::Absent);
        if directory.abandon(&error).await? == WriteOutcome::Done {
            warn!(%device, error, "not connected any more");
        }
    }
    Ok(())
}

async fn taken_up(host: &DaemonContext, device: &DeviceKey) -> Result<bool, String> {
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

/// Two QEMUs would open the same images, and one of them cannot go on with what another has begun.
async fn startable(host: &DaemonContext, device: &DeviceKey) -> Result<(), String> {
    let guest = device.frontend;
    match directory::has_device_model(host, guest).await {
        Ok(false) => {}
        Ok(true) => {
            return Err(format!(
                "the toolstack has one for domain {guest}, which takes up all its disks: attach them with `xl block-attach`"
            ));
        }
        Err(error) => return Err(format!("xenstore does not tell whether the toolstack has one: {error}")),
    }
    if taken_up(host, device).await? {
        return Err("the one that had taken the device up has ended, and another cannot serve it".to_owned());
    }
    Ok(())
}

/// Looks after all of them, for as long as the daemon runs.
pub(crate) async fn tend(host: Arc<DaemonContext>) {
    while !host.draining.is_cancelled() {
        sleep(EVERY).await;
        if host.shared.helpers.is_empty() {
            continue;
        }
        let (shared, process) = (Arc::clone(&host.shared), Arc::clone(&host.system.process));
        // A panic on a worker thread ends the daemon, see `main`.
        let lost = host.workers.run(move || shared.helpers.poll(process.as_ref())).await;
        let lost = lost.unwrap_or_default();
        host.registry.wake_all(|part| lost.contains(part));
    }
}
