//! Attach, detach and prepare: each repeats snapshot, action and wait until the operation ends.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use xenplug_hotplug::{
    Class, RequestPath,
    toolstack::{NextStep, Operation, OperationOutcome, ToolstackAction, next},
};
use xenplug_xenbus::{DevId, DomId};
use xenplug_xenstore::{Backoff, Client, Endpoint, Path};

use crate::{
    Error, Progress, Spec, domain,
    store::{Device, free_devid, prepare, random_id},
};

/// Interval of snapshots without an event.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(5);

/// Retries with another device number for a vif without one.
const DEVID_RETRIES: u32 = 16;

/// Toolstack on a store.
#[derive(Clone, Debug)]
pub struct Toolstack {
    client: Client,
}

impl Toolstack {
    /// Connects to a store, which has to be dom0's.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, Error> {
        Ok(Self::new(Client::connect(endpoint).await?))
    }

    /// Uses an existing connection of dom0.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// Resolves a domain by its id or name.
    pub async fn domain(&self, text: &str) -> Result<DomId, Error> {
        domain::find(&self.client, text).await
    }

    /// Gives a driver domain the permissions that it needs. A repeated call changes nothing.
    pub async fn prepare(&self, domain: DomId) -> Result<(), Error> {
        let prepared = self
            .client
            .transaction(&Backoff::default(), async |transaction| {
                prepare(transaction, domain).await.map_err(Error::from)
            })
            .await?;
        if prepared { Ok(()) } else { Err(Error::NoGuest(domain)) }
    }

    /// Requests a device from a driver domain and waits until it is set up, for the given time at most; without a time it
    /// returns as soon as the request is written. After a failure or a timeout the driver domain releases what it has begun,
    /// which may take longer than the call.
    ///
    /// Returns the request's path.
    pub async fn attach(
        &self,
        backend: DomId,
        frontend: DomId,
        spec: &Spec,
        wait: Option<Duration>,
        mut progress: impl FnMut(RequestPath, Progress),
    ) -> Result<RequestPath, Error> {
        let class = spec.class();
        let mut retries = 0;
        loop {
            let devid = match spec.devid() {
                Some(devid) => devid,
                None => free_devid(&self.client.begin().await?, class, frontend).await?,
            };
            let path = RequestPath {
                backend,
                class,
                frontend,
                devid,
            };
            match self.attach_at(path, spec, wait, &mut progress).await {
                // Another toolstack has used the number meanwhile.
                Err(Error::Exists(_) | Error::Foreign(_)) if spec.devid().is_none() && retries < DEVID_RETRIES => {
                    retries += 1
                }
                other => return other.map(|()| path),
            }
        }
    }

    async fn attach_at(
        &self,
        path: RequestPath,
        spec: &Spec,
        wait: Option<Duration>,
        progress: &mut impl FnMut(RequestPath, Progress),
    ) -> Result<(), Error> {
        let id = random_id()?;
        let device = Device {
            path,
            to_write: Some((spec, id)),
            // The guest of a request that has to be removed first is gone.
            force: true,
        };
        let operation = Operation::Attach { id, written: false };
        match self.run(&device, operation, wait, progress).await {
            Err(timeout @ Error::Timeout { .. }) => {
                let device = Device {
                    to_write: None,
                    force: false,
                    ..device
                };
                let operation = Operation::Detach {
                    id: Some(id),
                    force: false,
                };
                self.run(&device, operation, None, progress).await?;
                Err(timeout)
            }
            end => end.map(drop),
        }
    }

    /// Detaches a device and waits until nothing is held for it any more, for the given time at most; without a time it
    /// returns as soon as the detach is requested. With `force` the driver domain does not wait for the guest.
    pub async fn detach(
        &self,
        path: RequestPath,
        force: bool,
        wait: Option<Duration>,
        mut progress: impl FnMut(RequestPath, Progress),
    ) -> Result<(), Error> {
        let device = Device {
            path,
            to_write: None,
            force,
        };
        let operation = Operation::Detach { id: None, force };
        if self.run(&device, operation, wait, &mut progress).await? {
            Ok(())
        } else {
            Err(Error::NoDevice(path))
        }
    }

    /// Runs an operation to its end. Returns whether there ever was a request.
    async fn run(
        &self,
        device: &Device<'_>,
        mut operation: Operation,
        wait: Option<Duration>,
        progress: &mut impl FnMut(RequestPath, Progress),
    ) -> Result<bool, Error> {
        let path = device.path;
        let begun = Instant::now();
        let watched: Path = path.to_string().parse()?;
        let mut watch = self.client.watch(&watched).await?;
        let (mut reported, mut requested) = (None, false);
        loop {
            // Committed even without an action: only then is the snapshot known to be consistent.
            let (snapshot, next) = self
                .client
                .transaction(&Backoff::default(), async |transaction| {
                    let snapshot = device.snapshot(transaction).await?;
                    let next = next(&operation, &snapshot);
                    if let NextStep::Do(action) | NextStep::Finish(Some(action), _) = &next {
                        device.apply(transaction, action).await?;
                    }
                    Ok::<_, xenplug_xenstore::Error>((snapshot, next))
                })
                .await?;
            let state = snapshot.request.as_ref().map(|request| request.state);
            requested |= state.is_some();
            if let (Operation::Detach { id: id @ None, .. }, Some(request)) = (&mut operation, &snapshot.request) {
                *id = Some(request.id);
            }
            if reported != Some(state) {
                reported = Some(state);
                progress(path, Progress(state));
            }
            let (action, end) = match &next {
                NextStep::Wait => (None, None),
                NextStep::Do(action) => (Some(action), None),
                NextStep::Finish(action, end) => (action.as_ref(), Some(end)),
            };
            if let (Operation::Attach { written, .. }, Some(ToolstackAction::Create)) = (&mut operation, action) {
                *written = true;
            }
            if let Some(end) = end {
                return result_of(path, end).map(|()| requested);
            }
            if action.is_some() {
                continue;
            }
            let Some(timeout) = wait else {
                return Ok(requested);
            };
            let deadline = begun + timeout;
            let until = deadline.min(Instant::now() + SNAPSHOT_INTERVAL);
            // A snapshot follows whatever ends the wait.
            let _ = timeout_at(until, watch.next()).await;
            if Instant::now() >= deadline {
                return Err(Error::Timeout {
                    path,
                    waited: timeout,
                    state: Progress(state),
                });
            }
        }
    }
}

fn result_of(path: RequestPath, end: &OperationOutcome) -> Result<(), Error> {
    match end {
        OperationOutcome::Attached | OperationOutcome::Detached => Ok(()),
        OperationOutcome::NoGuest => Err(Error::NoGuest(path.frontend)),
        OperationOutcome::NoDriverDomain => Err(Error::NoDriverDomain(path.backend)),
        OperationOutcome::Exists { requested: true } => Err(Error::Exists(path)),
        OperationOutcome::Exists { requested: false } => Err(Error::Foreign(path)),
        OperationOutcome::DetachedElsewhere => Err(Error::DetachedElsewhere(path)),
        OperationOutcome::Failed(why) => Err(Error::Failed(why.clone())),
    }
}

/// Returns the path of a device that an operator names by its virtual device or its number.
pub fn request_path(backend: DomId, frontend: DomId, class: Class, device: &str) -> Option<RequestPath> {
    let devid = match class {
        Class::Vbd => crate::spec::dev_number(device),
        Class::Vif => device.parse::<DevId>().ok(),
    };
    devid.map(|devid| RequestPath {
        backend,
        class,
        frontend,
        devid,
    })
}
