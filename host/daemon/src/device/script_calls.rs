//! The script calls that wait for a device, and the answer that each gets.

use std::{collections::BTreeMap, future::poll_fn, task::Poll, time::Duration};

use tokio::{sync::oneshot, time::Instant};
use xenplug_control::script::{Answer, ScriptAction};
use xenplug_xenbus::{AfterRelease, DeviceFsm, Event, Phase};

/// The time in which a device must become what a script was run for. libxl kills the script after 40 s
/// (tools/libs/light/libxl_internal.h, `LIBXL_HOTPLUG_TIMEOUT`), and drops the script's reason.
pub(crate) const SCRIPT_LIMIT: Duration = Duration::from_secs(35);

/// The arguments of a script besides its device: [`xenplug_control::script::Call::parameters`].
pub(crate) type ScriptArgs = BTreeMap<String, String>;

/// A script's request to the daemon that waits for its answer. Dropping it refuses it.
#[derive(Debug)]
pub(crate) struct ScriptCall {
    action: ScriptAction,
    arguments: ScriptArgs,
    until: Option<Instant>,
    answer: oneshot::Sender<Answer>,
}

impl ScriptCall {
    /// Creates a call whose time starts now, and the receiver of its answer. Dropping the receiver cancels the call.
    pub(crate) fn new(action: ScriptAction, arguments: ScriptArgs) -> (Self, oneshot::Receiver<Answer>) {
        let (answer, answered) = oneshot::channel();
        let call = Self {
            action,
            arguments,
            until: Some(Instant::now() + SCRIPT_LIMIT),
            answer,
        };
        (call, answered)
    }

    pub(super) fn answer(self, answer: Answer) {
        // The script may be gone.
        let _ = self.answer.send(answer);
    }
}

/// The calls that wait for one device.
#[derive(Debug, Default)]
pub(super) struct PendingCalls {
    /// Calls to add the device for which no handler has begun.
    adds: Vec<ScriptCall>,
    /// Calls to add the device that get the outcome of the handler that runs, or has just run.
    begun: Vec<ScriptCall>,
    /// Calls to remove the device.
    removes: Vec<ScriptCall>,
}

/// The calls that have waited for as long as they can.
#[derive(Debug)]
pub(super) struct Overdue {
    /// Adds for which no handler has begun, and removes. The caller answers them.
    pub(super) waiting: Vec<ScriptCall>,
    /// True if there are calls whose handler runs, or whose outcome is being written.
    pub(super) begun: bool,
}

impl PendingCalls {
    /// Takes a call, and returns the state machine's event for it.
    pub(super) fn take(&mut self, call: ScriptCall) -> Event {
        let (calls, event) = match call.action {
            ScriptAction::Add => (&mut self.adds, Event::Add),
            ScriptAction::Remove => (&mut self.removes, Event::Remove),
        };
        calls.push(call);
        event
    }

    /// Answers the calls that the state machine has decided with its last event.
    pub(super) fn settle(&mut self, fsm: &DeviceFsm, failure: Option<&str>) {
        use AfterRelease::PublishFailure;
        use Phase::{Absent, Connected, Connecting, Failed, Failing, Foreign, Publishing, ReleaseFailed, Releasing};
        let phase = fsm.phase();
        let why = || failed(failure.unwrap_or("failed for an unknown reason"));
        if !fsm.add_pending() {
            match phase {
                Connecting { stopping: false } => self.begun.append(&mut self.adds),
                Connected | Foreign => answer(&mut self.adds, || Answer::Done),
                Absent => answer(&mut self.adds, || {
                    failed("xenplugd: there is no such backend in xenstore")
                }),
                _ => answer(&mut self.adds, || {
                    failed("xenplugd: the device was removed before it was connected")
                }),
            }
        }
        match phase {
            Connecting { stopping: false } | Publishing | Failing => {}
            Releasing { then: PublishFailure } | ReleaseFailed { then: PublishFailure } => {}
            // The publication may have failed.
            Connected if fsm.read_pending() => {}
            Connected => answer(&mut self.begun, || Answer::Done),
            Failed { .. } => answer(&mut self.begun, why),
            _ => answer(&mut self.begun, || {
                failed("xenplugd: the device was removed or recreated while it was being connected")
            }),
        }
        match phase {
            ReleaseFailed { .. } => answer(&mut self.removes, why),
            _ if fsm.remove_pending() => {}
            Foreign => answer(&mut self.removes, || Answer::NotServed {
                error: "xenplugd: the device was set up by somebody else".to_owned(),
            }),
            _ => answer(&mut self.removes, || Answer::Done),
        }
    }

    /// Returns the arguments of the calls whose handler is about to begin: those of the newest call.
    pub(super) fn arguments(&self) -> ScriptArgs {
        self.begun.last().map(|call| call.arguments.clone()).unwrap_or_default()
    }

    /// Waits until the last script is gone that waited for an add without a handler.
    pub(super) async fn withdrawn(&mut self) {
        poll_fn(|context| {
            let waited = !self.adds.is_empty();
            self.adds
                .retain_mut(|call| call.answer.poll_closed(context).is_pending());
            match waited && self.adds.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }

    /// Returns when the first call has waited for as long as it can.
    pub(super) fn until(&self) -> Option<Instant> {
        self.all().filter_map(|call| call.until).min()
    }

    /// Returns the calls that are overdue. Those with a handler are reported once: the handler is to be stopped, and its
    /// outcome answers them.
    pub(super) fn overdue(&mut self, now: Instant) -> Overdue {
        let is_late = |call: &mut ScriptCall| call.until.is_some_and(|until| until <= now);
        let mut waiting: Vec<ScriptCall> = self.adds.extract_if(.., is_late).collect();
        waiting.extend(self.removes.extract_if(.., is_late));
        let mut begun = false;
        for call in self.begun.iter_mut().filter_map(|call| is_late(call).then_some(call)) {
            call.until = None;
            begun = true;
        }
        Overdue { waiting, begun }
    }

    /// Fails the calls whose handler has begun: its outcome comes too late.
    pub(super) fn give_up(&mut self, why: &str) {
        answer(&mut self.begun, || failed(why));
    }

    /// Tests whether a call waits for a handler to begin.
    pub(super) fn any_add(&self) -> bool {
        !self.adds.is_empty()
    }

    fn all(&self) -> impl Iterator<Item = &ScriptCall> {
        self.adds.iter().chain(&self.begun).chain(&self.removes)
    }
}

fn answer(calls: &mut Vec<ScriptCall>, with: impl Fn() -> Answer) {
    calls.drain(..).for_each(|call| call.answer(with()));
}

pub(super) fn failed(error: &str) -> Answer {
    Answer::Failed {
        error: error.to_owned(),
    }
}

#[cfg(test)]
mod tests;
