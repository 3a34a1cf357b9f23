//! The actions that write to the device's directory.

use tokio::time::Instant;
use tracing::{info, warn};
use xenplug_xenbus::{Event, WriteOutcome};
use xenplug_xenstore::Error;

use super::Driver;
use crate::device::failure::Failure;

impl Driver {
    pub(super) async fn publish(&mut self) -> Event {
        let attempt = &self.attempt;
        let written = match self.fsm.identity() {
            Some(identity) => {
                self.directory
                    .publish(identity, &attempt.fingerprint, &attempt.connection)
                    .await
            }
            None => Ok(WriteOutcome::Stale),
        };
        let outcome = match written {
            Ok(outcome) => outcome,
            // It may be written or not; the read that follows tells.
            Err(error) if error.is_disconnected() => WriteOutcome::Unknown,
            Err(error) => {
                let hint = match error.is_quota() {
                    true => "; this domain's quota in xenstored is used up",
                    false => "",
                };
                let cause = format!("cannot publish backend nodes: {error}{hint}");
                self.fail(Failure::new(self.attempt.plugin_name(), &cause));
                WriteOutcome::Failed
            }
        };
        if outcome == WriteOutcome::Done {
            let took = self.attempt.began.elapsed();
            let (device, plugin) = (&self.instance, self.attempt.plugin_name());
            self.context.metrics.connected(&device.device.kind, took);
            let micros = took.as_micros() as u64;
            info!(%device, plugin, micros, "{device}: connected by {plugin} in {micros} us");
        }
        Event::Written(outcome)
    }

    pub(super) async fn withdraw(&mut self) -> Event {
        let written = match self.fsm.identity() {
            Some(identity) => self.directory.withdraw(identity, None).await,
            None => Ok(WriteOutcome::Stale),
        };
        self.written(written, "withdraw the connection")
    }

    /// Publishes the failure that led here.
    pub(super) async fn publish_failure(&mut self) -> Event {
        let failure = self.failure.clone();
        let unknown = || Failure::new(self.attempt.plugin_name(), "failed for an unknown reason");
        let failure = failure.unwrap_or_else(unknown);
        self.write_failure(&failure).await
    }

    /// Writes a failure, also while the state machine goes on.
    pub(super) async fn write_failure(&mut self, failure: &Failure) -> Event {
        let fingerprint = &self.attempt.fingerprint;
        let written = self
            .directory
            .publish_failure(&self.fsm, fingerprint, failure.status, &failure.text)
            .await;
        self.written(written, "publish the failure")
    }

    pub(super) async fn publish_disconnected(&mut self) -> Event {
        let began = Instant::now();
        let written = match self.fsm.identity() {
            Some(identity) => self.directory.publish_disconnected(identity).await,
            None => Ok(WriteOutcome::Stale),
        };
        self.last_write = began.elapsed();
        self.written(written, "publish that the device is disconnected")
    }

    pub(super) async fn remove_directory(&mut self) -> Event {
        let written = match self.fsm.identity() {
            Some(identity) => self.directory.remove(identity).await,
            None => Ok(WriteOutcome::Stale),
        };
        self.written(written, "remove the directory")
    }

    fn written(&mut self, written: Result<WriteOutcome, Error>, action: &str) -> Event {
        Event::Written(written.unwrap_or_else(|error| {
            let device = &self.instance;
            warn!(%device, "{device}: cannot {action}: {error}");
            if error.is_disconnected() {
                return WriteOutcome::Unknown;
            }
            self.deadlines.reread_soon();
            WriteOutcome::Failed
        }))
    }
}
