//! Writes to a device's backend directory: each is one transaction that reads the directory once more and writes only if it
//! is still the same device's, in a state that allows it.
//!
//! Only this module writes `hotplug-status` and `hotplug-error`.

use tracing::warn;
use xenplug_runtime::Connection;
use xenplug_xenbus::{DeviceFsm, HotplugStatus, Identity, Observation, VifType, WriteOutcome};
use xenplug_xenstore::{Error, Path, Reply, Request, Transaction};

use super::{
    observe::{Directory, Fingerprint, RETRY, STATE_NODES},
    prune::remove,
};

type Outcome = Result<WriteOutcome, Error>;

impl Directory {
    /// Publishes a connection, `hotplug-status=connected` last, if the device may still be connected and has its
    /// fingerprint.
    ///
    /// The frontend's nodes come before that: a guest reads `mtu` once, as soon as its backend is connected
    /// (tools/hotplug/Linux/vif-bridge calls `set_mtu` before `success`).
    pub(super) async fn publish(
        &self,
        identity: &Identity,
        fingerprint: &Fingerprint,
        connection: &Connection,
    ) -> Outcome {
        let mut nodes = connection.backend.clone();
        nodes.push(("hotplug-status".to_owned(), "connected".to_owned()));
        if self.vif_type == VifType::Paravirtual && !connection.frontend.is_empty() {
            self.write_frontend(identity, &connection.frontend).await;
        }
        let connectable = |seen: &Observation| seen.connectable(identity) && self.has_link(fingerprint.link);
        self.write(nodes, fingerprint, connectable).await
    }

    /// Tests whether the link of that index exists, if there was one.
    fn has_link(&self, link: Option<u32>) -> bool {
        link.is_none_or(|index| matches!(self.context.platform.network.link_by_index(index), Ok(Some(_))))
    }

    /// Publishes why a device failed, if the directory is still that device's. The failure says nothing about a recreated
    /// device.
    pub(super) async fn publish_failure(
        &self,
        fsm: &DeviceFsm,
        fingerprint: &Fingerprint,
        status: &str,
        error: &str,
    ) -> Outcome {
        let failed = |seen: &Observation| fsm.accepts_failure(seen) && self.has_link(fingerprint.link);
        self.write(failure_nodes(status, error), fingerprint, failed).await
    }

    /// Publishes that nobody serves the device any more, if its status is `connected`. A closed device is to be removed.
    pub(crate) async fn abandon(&self, error: &str) -> Outcome {
        let abandoned = |seen: &Observation| seen.present && seen.status == HotplugStatus::Connected && !seen.leaving();
        let nodes = failure_nodes("error", error);
        self.write(nodes, &Fingerprint::default(), abandoned).await
    }

    /// Withdraws the connection, and what the kernel would act on, if the kernel has not: the device is to be connected
    /// again. With `lost`, publishes that cause until then: the kernel may have been quicker, and no handler runs in that
    /// case.
    pub(super) async fn withdraw(&self, identity: &Identity, lost: Option<&str>) -> Outcome {
        self.write_if(
            &[],
            |seen| seen.withdrawable(identity),
            async |transaction| {
                // blkback opens what it names at any time (linux/drivers/block/xen-blkback/xenbus.c, `backend_changed`).
                self.remove_node(transaction, "physical-device").await?;
                Ok(match lost {
                    Some(error) => self.writes(&failure_nodes("error", error)),
                    None => vec![Request::Write(self.node("hotplug-status"), Vec::new())],
                })
            },
        )
        .await
    }

    /// Publishes that nothing is held any more.
    pub(super) async fn publish_disconnected(&self, identity: &Identity) -> Outcome {
        let nodes = vec![("hotplug-status".to_owned(), "disconnected".to_owned())];
        self.write(nodes, &Fingerprint::default(), |seen| seen.is_of(identity))
            .await
    }

    /// Removes the directory, if the device is leaving.
    pub(super) async fn remove(&self, identity: &Identity) -> Outcome {
        self.write_if(
            &[],
            |seen| seen.is_of(identity) && seen.leaving(),
            async |transaction| remove(transaction, &self.path).await.map(|()| Vec::new()),
        )
        .await
    }

    /// Writes nodes in their order if the device allows it, and removes an earlier error. Of an emulated vif's nodes only
    /// the error is written.
    async fn write(
        &self,
        mut nodes: Vec<(String, String)>,
        fingerprint: &Fingerprint,
        allowed: impl Fn(&Observation) -> bool,
    ) -> Outcome {
        let mut status = None;
        if self.vif_type == VifType::Emulated {
            status = nodes
                .pop_if(|(name, _)| name == "hotplug-status")
                .map(|(_, status)| status);
            nodes.retain(|(name, _)| name == "hotplug-error");
        }
        let outcome = self
            .write_if(&fingerprint.wanted, allowed, async |transaction| {
                if fingerprint.failed && self.vif_type == VifType::Paravirtual {
                    self.remove_node(transaction, "hotplug-error").await?;
                }
                Ok(self.writes(&nodes))
            })
            .await?;
        if let (Some(status), WriteOutcome::Done) = (status, outcome) {
            self.emulated_status.set(HotplugStatus::parse(Some(&status)));
        }
        Ok(outcome)
    }

    fn writes(&self, nodes: &[(String, String)]) -> Vec<Request> {
        nodes
            .iter()
            .map(|(name, value)| Request::Write(self.node(name), value.clone().into_bytes()))
            .collect()
    }

    /// Removes a node, if it exists.
    async fn remove_node(&self, transaction: &Transaction, name: &str) -> Result<(), Error> {
        match transaction.rm(&self.node(name)).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Runs one transaction: reads the device and the nodes that must have `unchanged` values; if it is allowed, lets
    /// `act` make its own requests and return the remaining ones, and commits. Otherwise nothing is changed.
    async fn write_if(
        &self,
        unchanged: &[(&str, Vec<u8>)],
        allowed: impl Fn(&Observation) -> bool,
        act: impl AsyncFn(&Transaction) -> Result<Vec<Request>, Error>,
    ) -> Outcome {
        /// The reason for which an attempt ends.
        enum End {
            Stale,
            Store(Error),
        }
        impl From<Error> for End {
            fn from(error: Error) -> Self {
                Self::Store(error)
            }
        }
        let done = self
            .context
            .store
            .transaction(&RETRY, async |transaction| {
                let mut reads: Vec<Request> = STATE_NODES.iter().map(|name| Request::Read(self.node(name))).collect();
                reads.push(Request::Read(self.vm_path.clone()));
                reads.extend(unchanged.iter().map(|(name, _)| Request::Read(self.node(name))));
                let mut replies = transaction.batch(reads).await?;
                let same = replies
                    .split_off(STATE_NODES.len() + 1)
                    .into_iter()
                    .zip(unchanged)
                    .all(|(now, (_, then))| matches!(now, Ok(Reply::Value(now)) if now == *then));
                let vm = self.vm_of(replies.pop());
                let seen = self.observation(replies, vm)?;
                if !(same && allowed(&seen)) {
                    return Err(End::Stale);
                }
                for reply in transaction.batch(act(transaction).await?).await? {
                    reply?;
                }
                Ok(())
            })
            .await;
        match done {
            Ok(()) => Ok(WriteOutcome::Done),
            Err(End::Stale) => Ok(WriteOutcome::Stale),
            Err(End::Store(error)) => Err(error),
        }
    }

    /// Writes nodes on the frontend's side, if the directory exists and the toolstack lets this domain write them.
    async fn write_frontend(&self, identity: &Identity, nodes: &[(String, String)]) {
        let frontend = self.backend.frontend_path();
        let Ok(frontend) = frontend.parse::<Path>() else { return };
        let written = self
            .context
            .store
            .transaction(&RETRY, async |transaction| {
                transaction.read(&frontend).await?;
                for (name, value) in nodes {
                    transaction.write(&frontend.join(name)?, value).await?;
                }
                Ok::<_, Error>(())
            })
            .await;
        match written {
            Ok(()) => {}
            // The directory is the guest's own, or the guest is gone: the daemon can mend neither.
            Err(error) if error.is_not_found() || error.is_denied() => {}
            Err(error) => {
                let device = &identity.key;
                warn!(%device, "{device}: cannot publish the frontend's nodes: {error}");
            }
        }
    }
}

fn failure_nodes(status: &str, error: &str) -> Vec<(String, String)> {
    vec![
        ("hotplug-error".to_owned(), error.to_owned()),
        ("hotplug-status".to_owned(), status.to_owned()),
    ]
}

#[cfg(test)]
mod tests;
