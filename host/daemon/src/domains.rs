//! The frontend domains that xenstored knows, kept current by its special watches or, where those are denied, by polls.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info};
use xenplug_xenbus::DomId;
use xenplug_xenstore::{Client, Error, Watch};

use crate::retry::AGAIN;

/// The interval of polls where no special watch can be set.
const POLL: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Not introduced: not yet, or never by its builder.
    Never,
    Introduced,
    /// It was introduced, and is no longer.
    Gone,
}

/// The frontend domains.
///
/// A domain counts as gone only if it was introduced before: a domain that was never introduced cannot be distinguished from
/// one that will be.
pub(crate) struct Domains {
    client: Client,
    known: Mutex<BTreeMap<DomId, Known>>,
}

impl Domains {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::new(BTreeMap::new()),
        }
    }

    /// Tests whether xenstored knows the domain. Asks once, then keeps the answer.
    pub(crate) async fn introduced(&self, domain: DomId) -> Result<bool, Error> {
        if let Some(known) = self.table().get(&domain) {
            return Ok(*known == Known::Introduced);
        }
        let introduced = self.ask(domain).await?;
        self.table()
            .entry(domain)
            .or_insert(if introduced { Known::Introduced } else { Known::Never });
        Ok(introduced)
    }

    /// Tests whether the domain was introduced and is gone.
    pub(crate) fn gone(&self, domain: DomId) -> bool {
        self.table().get(&domain) == Some(&Known::Gone)
    }

    /// Notes that an earlier daemon saw the domain introduced.
    pub(crate) async fn was_introduced(&self, domain: DomId) -> Result<(), Error> {
        let known = if self.ask(domain).await? {
            Known::Introduced
        } else {
            Known::Gone
        };
        self.table().insert(domain, known);
        Ok(())
    }

    /// Follows the domains, and calls `changed` for each that came or went.
    pub(crate) async fn follow(&self, changed: impl Fn(DomId)) {
        let mut watches = Special::set(&self.client).await;
        loop {
            watches.changed().await;
            let domains: Vec<DomId> = self.table().keys().copied().collect();
            for domain in domains {
                let Ok(introduced) = self.ask(domain).await else {
                    continue;
                };
                let now = {
                    let mut table = self.table();
                    let known = table.entry(domain).or_insert(Known::Never);
                    let now = match (*known, introduced) {
                        (_, true) => Known::Introduced,
                        (Known::Introduced, false) => Known::Gone,
                        (before, false) => before,
                    };
                    if std::mem::replace(known, now) == now {
                        continue;
                    }
                    now
                };
                let state = if now == Known::Gone { "gone" } else { "introduced" };
                info!(%domain, "domain {domain} is {state}");
                changed(domain);
            }
        }
    }

    /// Forgets the domains that no device uses.
    pub(crate) fn keep(&self, used: impl Fn(DomId) -> bool) {
        self.table().retain(|domain, _| used(*domain));
    }

    async fn ask(&self, domain: DomId) -> Result<bool, Error> {
        match self.client.is_introduced(domain.0).await {
            // Where only dom0 may ask, no domain counts as known.
            Err(error) if error.is_denied() => Ok(false),
            other => other,
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<DomId, Known>> {
        // Every change is one assignment, so a poisoned table is still whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two special watches, or a clock for polls.
enum Special {
    Watches(Watch, Watch),
    Clock(Instant),
}

impl Special {
    async fn set(client: &Client) -> Self {
        let watch = async |name: &str| client.watch(&name.parse()?).await;
        loop {
            match (watch("@introduceDomain").await, watch("@releaseDomain").await) {
                (Ok(introduced), Ok(released)) => return Self::Watches(introduced, released),
                (Err(error), _) | (_, Err(error)) if error.errno().is_some() => {
                    debug!("domains are polled, as they cannot be watched: {error}");
                    return Self::Clock(Instant::now() + POLL);
                }
                // The store did not refuse: it is away.
                _ => sleep(AGAIN).await,
            }
        }
    }

    async fn changed(&mut self) {
        match self {
            Self::Watches(introduced, released) => {
                let event = tokio::select! {
                    biased;
                    event = introduced.next() => event,
                    event = released.next() => event,
                };
                if event.is_none() {
                    *self = Self::Clock(Instant::now() + POLL);
                }
            }
            Self::Clock(next) => {
                sleep_until(*next).await;
                *next = Instant::now() + POLL;
            }
        }
    }
}

#[cfg(test)]
mod tests;
