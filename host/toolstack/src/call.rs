//! The calls: each looks, does what is next, and waits, until it is over.

use std::{fmt, io, time::Duration};

use tokio::time::{Instant, timeout_at};
use xenplug_hotplug::{
    Class, RequestPath, State,
    toolstack::{NextStep, Operation, OperationOutcome, ToolstackAction, next},
};
use xenplug_xenbus::{DevId, DomId};
use xenplug_xenstore::{Backoff, Client, Endpoint, Path};

use crate::{
    Spec, domain,
    store::{Device, free_devid, prepare, random_id},
};

/// How long to wait for an event before looking all the same.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often another number is tried for a card that says none.
const NUMBERS: u32 = 16;

/// Why a call did not end as wished.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No domain has that name.
    #[error("there is no domain `{0}`")]
    NoDomain(String),
    /// More than one has it.
    #[error("several domains have the name `{0}`; say which by its number")]
    SeveralDomains(String),
    /// The guest is not there.
    #[error("there is no domain {0}")]
    NoGuest(DomId),
    /// The driver domain is not there, or not prepared.
    #[error("domain {0} has gone, or is not prepared to serve devices: run `xenplug prepare {0}`")]
    NoDriverDomain(DomId),
    /// There is such a device.
    #[error("{0} is there already; detach it first")]
    Exists(RequestPath),
    /// There is such a device, and another toolstack has made it.
    #[error("domain {guest} has a device {class}/{devid} already, which another toolstack has made", guest = .0.frontend, class = .0.class, devid = .0.devid)]
    Foreign(RequestPath),
    /// There is no such device.
    #[error("there is no {0}")]
    NoDevice(RequestPath),
    /// Somebody else detaches it.
    #[error("{0} is being detached by somebody else")]
    DetachedElsewhere(RequestPath),
    /// The driver domain's own words.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("{waited:?} have passed, and {path} is {state}")]
    Timeout {
        /// Which device.
        path: RequestPath,
        /// How long was waited.
        waited: Duration,
        /// How far it got.
        state: Progress,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] xenplug_xenstore::Error),
    /// No random number could be had.
    #[error("no random number from /dev/urandom: {0}")]
    Random(#[from] io::Error),
}

impl From<xenplug_xenstore::PathError> for Error {
    fn from(error: xenplug_xenstore::PathError) -> Self {
        Self::Store(error.into())
    }
}

/// How far a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress(pub Option<State>);

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "not there",
            Some(State::Requested) => "asked for; the driver domain has not taken it up",
            Some(State::Accepted) => "being set up",
            Some(State::Ready) => "set up; the guest may connect",
            Some(State::InUse) => "in use",
            Some(State::Detaching) => "being taken down",
            Some(State::Closed) => "closed",
            Some(State::Unknown) => "in no state that means anything",
        })
    }
}

/// A toolstack, on a store.
#[derive(Clone, Debug)]
pub struct Toolstack {
    client: Client,
}

impl Toolstack {
    /// On the store there.
    pub async fn connect(endpoint: Endpoint) -> Result<Self, Error> {
        Ok(Self::new(Client::connect(endpoint).await?))
    }

    /// On a connection that was made already, of dom0's.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The domain of a number or a name.
    pub async fn domain(&self, text: &str) -> Result<DomId, Error> {
        domain::find(&self.client, text).await
    }

    /// Gives a driver domain the permissions that it needs. Doing it again changes nothing.
    pub async fn prepare(&self, domain: DomId) -> Result<(), Error> {
        let prepared = self
            .client
            .transaction(&Backoff::default(), async |transaction| {
                prepare(transaction, domain).await.map_err(Error::from)
            })
            .await?;
        if prepared { Ok(()) } else { Err(Error::NoGuest(domain)) }
    }

    /// Asks a driver domain for a device, and waits until it is set up. If that fails, or takes too long, nothing is left
    /// of it; but that what was begun is taken down may take the driver domain longer.
    ///
    /// Returns its place.
    pub async fn attach(
        &self,
        backend: DomId,
        frontend: DomId,
        spec: &Spec,
        wait: Option<Duration>,
        mut progress: impl FnMut(RequestPath, Progress),
    ) -> Result<RequestPath, Error> {
        let class = spec.class();
        let mut tries = 0;
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
                // Somebody has taken the number meanwhile.
                Err(Error::Exists(_) | Error::Foreign(_)) if spec.devid().is_none() && tries < NUMBERS => tries += 1,
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
            asked: Some((spec, id)),
            // The guest of a request that has to go first is dead.
            force: true,
        };
        let wish = Operation::Attach { id, written: false };
        match self.run(&device, wish, wait, progress).await {
            Err(timeout @ Error::Timeout { .. }) => {
                let device = Device {
                    asked: None,
                    force: false,
                    ..device
                };
                let wish = Operation::Detach {
                    id: Some(id),
                    force: false,
                };
                self.run(&device, wish, None, progress).await?;
                Err(timeout)
            }
            end => end.map(drop),
        }
    }

    /// Gives a device back, and waits until nothing is held for it any more. With `force` the guest is not waited for.
    pub async fn detach(
        &self,
        path: RequestPath,
        force: bool,
        wait: Option<Duration>,
        mut progress: impl FnMut(RequestPath, Progress),
    ) -> Result<(), Error> {
        let device = Device {
            path,
            asked: None,
            force,
        };
        let wish = Operation::Detach { id: None, force };
        if self.run(&device, wish, wait, &mut progress).await? {
            Ok(())
        } else {
            Err(Error::NoDevice(path))
        }
    }

    /// Runs a wish to its end. Whether there ever was a request.
    async fn run(
        &self,
        device: &Device<'_>,
        mut wish: Operation,
        wait: Option<Duration>,
        progress: &mut impl FnMut(RequestPath, Progress),
    ) -> Result<bool, Error> {
        let path = device.path;
        let begun = Instant::now();
        let watched: Path = path.to_string().parse()?;
        let mut watch = self.client.watch(&watched).await?;
        let (mut told, mut seen_any) = (None, false);
        loop {
            // Also where nothing is to be done: only once it is committed it is known that all was so at one moment.
            let (seen, next) = self
                .client
                .transaction(&Backoff::default(), async |transaction| {
                    let seen = device.look(transaction).await?;
                    let next = next(&wish, &seen);
                    if let NextStep::Do(action) | NextStep::Finish(Some(action), _) = &next {
                        device.act(transaction, action).await?;
                    }
                    Ok::<_, xenplug_xenstore::Error>((seen, next))
                })
                .await?;
            let state = seen.request.as_ref().map(|request| request.state);
            seen_any |= state.is_some();
            if let (Operation::Detach { id: id @ None, .. }, Some(request)) = (&mut wish, &seen.request) {
                *id = Some(request.id);
            }
            if told != Some(state) {
                told = Some(state);
                progress(path, Progress(state));
            }
            let (action, end) = match &next {
                NextStep::Wait => (None, None),
                NextStep::Do(action) => (Some(action), None),
                NextStep::Finish(action, end) => (action.as_ref(), Some(end)),
            };
            if let (Operation::Attach { written, .. }, Some(ToolstackAction::Create)) = (&mut wish, action) {
                *written = true;
            }
            if let Some(end) = end {
                return over(path, end).map(|()| seen_any);
            }
            if action.is_some() {
                continue;
            }
            let Some(timeout) = wait else {
                return Ok(seen_any);
            };
            let deadline = begun + timeout;
            let until = deadline.min(Instant::now() + LOOK_EVERY);
            // Whatever ends the wait, it is looked again.
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

fn over(path: RequestPath, end: &OperationOutcome) -> Result<(), Error> {
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

/// The place of a device by what an operator calls it: a virtual device's name, or a number.
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
