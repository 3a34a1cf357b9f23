//! The task that answers the questions of worker threads.

use std::sync::Arc;

use tracing::warn;

use super::{Question, Questions};
use crate::{foreign_disks::ForeignDisks, helpers::Helpers};

/// The features that know the answers.
pub(crate) struct StoreAnswers {
    pub(crate) helpers: Arc<Helpers>,
    pub(crate) foreign_disks: Arc<ForeignDisks>,
}

impl StoreAnswers {
    /// Answers questions one after the other, until the bridge is gone.
    pub(crate) async fn serve(self, mut questions: Questions) {
        while let Some(question) = questions.0.recv().await {
            // The thread that asked may have given up.
            match question {
                Question::ForeignUsers(number, reply) => {
                    let _ = reply.send(self.foreign_disks.users(number).await);
                }
                Question::BackendStarted(device, reply) => {
                    let _ = reply.send(self.helpers.backend_started(&device).await);
                }
                Question::MayStartHelper(device, reply) => {
                    let _ = reply.send(self.helpers.may_start(&device).await);
                }
                Question::HelperEnded(key, reply) => {
                    if let Err(error) = self.helpers.ended(&key).await {
                        let (helper, guest) = (&key.helper, key.guest.0);
                        warn!(
                            helper,
                            guest, "{helper} of domain {guest}: cannot publish its end: {error}"
                        );
                    }
                    let _ = reply.send(Ok(()));
                }
            }
        }
    }
}
