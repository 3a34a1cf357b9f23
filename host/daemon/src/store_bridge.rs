//! The bridge from worker threads to the store: typed questions of handlers' threads, answered by one task.

mod answer;

use std::{sync::mpsc, time::Duration};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use xenplug_runtime::{Claim, HelperKey, StoreQueries};
use xenplug_xenbus::{DeviceKey, Mode};

pub(crate) use self::answer::StoreAnswers;

/// The time in which the store must answer a question.
const DEADLINE: Duration = Duration::from_secs(5);

/// The sender of an answer; a worker thread waits for it. The error is for people.
type Reply<T> = mpsc::SyncSender<Result<T, String>>;

/// A question of a worker thread.
enum Question {
    ForeignUsers((u32, u32), Reply<Vec<Claim>>),
    BackendStarted(DeviceKey, Reply<bool>),
    MayStartHelper(DeviceKey, Reply<()>),
    HelperEnded(HelperKey, Reply<()>),
}

/// Questions in their order, for [`StoreAnswers::serve`].
pub(crate) struct Questions(UnboundedReceiver<Question>);

/// The bridge's end on worker threads.
pub(crate) struct StoreBridge {
    mode: Mode,
    questions: UnboundedSender<Question>,
}

impl StoreBridge {
    pub(crate) fn new(mode: Mode) -> (Self, Questions) {
        let (questions, receiver) = unbounded_channel();
        (Self { mode, questions }, Questions(receiver))
    }

    fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Question) -> Result<T, String> {
        let (reply, answer) = mpsc::sync_channel(1);
        let no_answer = || format!("xenstore does not answer within {} s", DEADLINE.as_secs());
        self.questions.send(question(reply)).map_err(|_| no_answer())?;
        answer.recv_timeout(DEADLINE).map_err(|_| no_answer())?
    }
}

impl StoreQueries for StoreBridge {
    fn foreign_users(&self, major: u32, minor: u32) -> Result<Vec<Claim>, String> {
        match self.mode {
            Mode::Dom0 => self.ask(|reply| Question::ForeignUsers((major, minor), reply)),
            // Original scripts run in dom0 alone.
            Mode::DriverDomain => Ok(Vec::new()),
        }
    }

    fn backend_started(&self, device: &DeviceKey) -> Result<bool, String> {
        self.ask(|reply| Question::BackendStarted(device.clone(), reply))
    }

    fn may_start_helper(&self, device: &DeviceKey) -> Result<(), String> {
        self.ask(|reply| Question::MayStartHelper(device.clone(), reply))
    }

    fn helper_ended(&self, key: &HelperKey) {
        // A store that is away for longer loses what guests write as well. The answering task logs errors.
        let _ = self.ask(|reply| Question::HelperEnded(key.clone(), reply));
    }
}
