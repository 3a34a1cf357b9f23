//! Which frontend domains xenstored knows, kept true by its special watches or, where those are denied, by polling.

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

/// How often to ask where no special watch can be set.
const POLL: Duration = Duration::from_secs(5);

/// What is known of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Never seen: built by something that does not introduce it, or not yet.
    Never,
    /// There.
    Introduced,
    /// It was there, and no longer is.
    Gone,
}

/// The frontend domains.
///
/// A domain counts as gone only if it was known before: one that was never introduced cannot be told from one that will
/// be.
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

    /// Whether xenstored knows the domain. Asked once, then kept.
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

    /// Whether the domain was there and has gone.
    pub(crate) fn gone(&self, domain: DomId) -> bool {
        self.table().get(&domain) == Some(&Known::Gone)
    }

    /// Remembers from an earlier daemon that the domain was there.
    pub(crate) async fn was_introduced(&self, domain: DomId) -> Result<(), Error> {
        let known = if self.ask(domain).await? {
            Known::Introduced
        } else {
            Known::Gone
        };
        self.table().insert(domain, known);
        Ok(())
    }

    /// Follows the domains, and tells of each that came or went.
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
                info!(%domain, "{}", if now == Known::Gone { "the domain has gone" } else { "the domain has come" });
                changed(domain);
            }
        }
    }

    /// Forgets domains that no device is for.
    pub(crate) fn keep(&self, used: impl Fn(DomId) -> bool) {
        self.table().retain(|domain, _| used(*domain));
    }

    async fn ask(&self, domain: DomId) -> Result<bool, Error> {
        match self.client.is_introduced(domain.0).await {
            // Where only dom0 may ask, nothing is known.
            Err(error) if error.is_denied() => Ok(false),
            other => other,
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<DomId, Known>> {
        // Every change is one assignment, so a poisoned table is still a true one.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The two special watches, or a clock.
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
                    debug!(%error, "domains are polled, as they cannot be watched");
                    return Self::Clock(Instant::now() + POLL);
                }
                // The store has not said no: it is away.
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
