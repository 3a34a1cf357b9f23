//! Who waits for a device: the scripts' calls that it was told of, and when each is answered with what.

use std::{collections::BTreeMap, future::poll_fn, task::Poll};

use tokio::{sync::oneshot, time::Instant};
use xenplug_control::script::{Answer, ScriptAction};
use xenplug_xenbus::{AfterRelease, DeviceFsm, Event, Phase};

use crate::script::LIMIT;

/// What a script was told besides its device: [`xenplug_control::script::Call::parameters`].
pub(crate) type ScriptArgs = BTreeMap<String, String>;

/// One call that waits for its answer. Dropped, it is refused.
#[derive(Debug)]
pub(crate) struct ScriptCall {
    action: ScriptAction,
    told: ScriptArgs,
    until: Option<Instant>,
    answer: oneshot::Sender<Answer>,
}

impl ScriptCall {
    /// A call that begins now, and where its answer comes. Nobody waits for it once that is dropped.
    pub(crate) fn new(action: ScriptAction, told: ScriptArgs) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let until = Some(Instant::now() + LIMIT);
        let ask = Self {
            action,
            told,
            until,
            answer,
        };
        (ask, answered)
    }

    /// Answers it.
    pub(super) fn answer(self, answer: Answer) {
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

/// The calls that wait for one device.
#[derive(Debug, Default)]
pub(super) struct PendingCalls {
    /// To add it; no handler has begun for them.
    adds: Vec<ScriptCall>,
    /// To add it; the handler that runs, or has just run, is theirs.
    begun: Vec<ScriptCall>,
    /// To remove it.
    removes: Vec<ScriptCall>,
}

/// What has waited for as long as it can.
#[derive(Debug)]
pub(super) struct Overdue {
    /// Calls that no handler has begun for, and removals. They are to be answered.
    pub(super) waiting: Vec<ScriptCall>,
    /// Whether there are calls whose handler runs, or whose outcome is being written.
    pub(super) begun: bool,
}

impl PendingCalls {
    /// Takes a call, and answers with what to tell the machine.
    pub(super) fn take(&mut self, ask: ScriptCall) -> Event {
        let (calls, event) = match ask.action {
            ScriptAction::Add => (&mut self.adds, Event::Add),
            ScriptAction::Remove => (&mut self.removes, Event::Remove),
        };
        calls.push(ask);
        event
    }

    /// Answers the calls that the machine has decided, after an event.
    pub(super) fn settle(&mut self, machine: &DeviceFsm, failure: Option<&str>) {
        use AfterRelease::PublishFailure;
        use Phase::{Absent, Connected, Connecting, Failed, Failing, Foreign, Publishing, ReleaseFailed, Releasing};
        let phase = machine.phase();
        let why = || failed(failure.unwrap_or("for a reason that was not kept"));
        if !machine.add_pending() {
            match phase {
                Connecting { stopping: false } => self.begun.append(&mut self.adds),
                Connected | Foreign => answer(&mut self.adds, || Answer::Done),
                Absent => answer(&mut self.adds, || {
                    failed("xenplugd: there is no such backend in xenstore")
                }),
                _ => answer(&mut self.adds, || {
                    failed("xenplugd: it was removed before it was plugged")
                }),
            }
        }
        match phase {
            Connecting { stopping: false } | Publishing | Failing => {}
            Releasing { then: PublishFailure } | ReleaseFailed { then: PublishFailure } => {}
            // It may not have been written.
            Connected if machine.read_pending() => {}
            Connected => answer(&mut self.begun, || Answer::Done),
            Failed { .. } => answer(&mut self.begun, why),
            _ => answer(&mut self.begun, || {
                failed("xenplugd: it went, or was written anew, while it was being plugged")
            }),
        }
        match phase {
            ReleaseFailed { .. } => answer(&mut self.removes, why),
            _ if machine.remove_pending() => {}
            Foreign => answer(&mut self.removes, || Answer::NotServed {
                error: "xenplugd: somebody else has plugged it".to_owned(),
            }),
            _ => answer(&mut self.removes, || Answer::Done),
        }
    }

    /// What those told besides whose handler is about to begin: the last of them, as it is the newest word.
    pub(super) fn told(&self) -> ScriptArgs {
        self.begun.last().map(|ask| ask.told.clone()).unwrap_or_default()
    }

    /// Waits until nobody waits any longer for an add that no handler has begun for, if somebody did.
    pub(super) async fn withdrawn(&mut self) {
        poll_fn(|context| {
            let waited = !self.adds.is_empty();
            self.adds.retain_mut(|ask| ask.answer.poll_closed(context).is_pending());
            match waited && self.adds.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// When the first of them has waited for as long as it can.
    pub(super) fn until(&self) -> Option<Instant> {
        self.all().filter_map(|ask| ask.until).min()
    }

    /// Which have, by now. The begun ones are not told again: their handler is to be stopped, and they are answered by
    /// how it ends.
    pub(super) fn overdue(&mut self, now: Instant) -> Overdue {
        let is_late = |ask: &mut ScriptCall| ask.until.is_some_and(|until| until <= now);
        let mut waiting: Vec<ScriptCall> = self.adds.extract_if(.., is_late).collect();
        waiting.extend(self.removes.extract_if(.., is_late));
        let mut begun = false;
        for ask in self.begun.iter_mut().filter_map(|ask| is_late(ask).then_some(ask)) {
            ask.until = None;
            begun = true;
        }
        Overdue { waiting, begun }
    }

    /// Answers those whose handler has begun: whenever it ends, nothing comes of it.
    pub(super) fn give_up(&mut self, why: &str) {
        answer(&mut self.begun, || failed(why));
    }

    /// Whether anybody waits for a handler to begin.
    pub(super) fn any_add(&self) -> bool {
        !self.adds.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &ScriptCall> {
        self.adds.iter().chain(&self.begun).chain(&self.removes)
    }
}

fn answer(calls: &mut Vec<ScriptCall>, with: impl Fn() -> Answer) {
    calls.drain(..).for_each(|ask| ask.answer(with()));
}

pub(super) fn failed(error: &str) -> Answer {
    Answer::Failed {
        error: error.to_owned(),
    }
}

#[cfg(test)]
mod tests;
