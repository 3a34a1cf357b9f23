//! State of a connection under its lock: the queue, the window of requests on the wire, and the watches.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    call::{Call, Purpose, TransactionId},
    inbox::Inbox,
    transport::{Outgoing, Sent},
};
use crate::{
    Errno, Error, Request,
    request::token_number,
    wire::{Frame, Kind, append_frame, only_string, strings},
};

/// Slots for requests on the wire; [`Outgoing::window`] limits how many are in use.
const WINDOW: usize = super::transport::WINDOW;

/// State of a connection under its lock.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Number of connections made.
    pub(super) epoch: u64,
    /// `None` while there is no connection.
    pub(super) outgoing: Option<Outgoing>,
    /// Calls that have requests left to send, and the index of the next one.
    queue: VecDeque<(Arc<Call>, usize)>,
    /// Requests on the wire. The number of a request is its slot plus a multiple of `WINDOW` that differs from that of the
    /// request before it, so that a late reply matches none.
    window: [Option<OnWire>; WINDOW],
    on_wire: usize,
    serial: u32,
    /// Watches, by token in the order in which they were set.
    pub(super) watches: BTreeMap<u64, Arc<Inbox>>,
    pub(super) last_token: u64,
}

#[derive(Debug)]
struct OnWire {
    number: u32,
    call: Arc<Call>,
    index: usize,
}

/// Callers to wake after the lock is released.
pub(super) type Wakers = Vec<Waker>;

impl State {
    /// Returns whether replies are outstanding.
    pub(super) fn is_waiting(&self) -> bool {
        self.on_wire > 0
    }

    /// Queues a call behind the others.
    pub(super) fn enqueue(&mut self, call: Arc<Call>) {
        if !call.requests.is_empty() {
            self.queue.push_back((call, 0));
        }
    }

    /// Puts queued requests on the wire, as many as the window allows.
    pub(super) fn pump(&mut self, wakers: &mut Wakers) -> Sent {
        let mut refused = Vec::new();
        loop {
            self.fill_window();
            let Some(outgoing) = &mut self.outgoing else {
                return Sent::All;
            };
            let sent = outgoing.flush(&mut refused);
            if refused.is_empty() {
                return sent;
            }
            for (number, errno) in refused.drain(..) {
                self.settle(number, Err(errno), wakers);
            }
        }
    }

    /// Handles one message from the store.
    pub(super) fn receive(&mut self, frame: Frame<'_>, wakers: &mut Wakers) -> Result<(), Error> {
        match Kind::of(frame.kind) {
            // Only the type identifies an event: on the device its number is arbitrary.
            Some(Kind::WatchEvent) => self.event(frame.payload, wakers),
            Some(Kind::Error) => {
                let errno = only_string(frame.payload).and_then(Errno::from_name);
                // As in libxenstore, an unknown error is EINVAL.
                self.settle(frame.request, Err(errno.unwrap_or(Errno::Invalid)), wakers);
            }
            kind => match self.expected(frame.request) {
                None => {}
                expected if expected == kind => self.settle(frame.request, Ok(frame.payload.to_vec()), wakers),
                Some(expected) => {
                    return Err(Error::Protocol(format!(
                        "type {} in reply to {}",
                        frame.kind,
                        expected.name()
                    )));
                }
            },
        }
        Ok(())
    }

    /// Fails every call after the loss of the connection.
    pub(super) fn disconnect(&mut self, wakers: &mut Wakers) {
        self.outgoing = None;
        self.on_wire = 0;
        let on_wire = self.window.iter_mut().filter_map(Option::take).map(|entry| entry.call);
        for call in on_wire.chain(self.queue.drain(..).map(|(call, _)| call)) {
            wakers.extend(call.fail(Error::Disconnected));
        }
    }

    /// Stores the answer to a request on the wire, and ignores any other.
    pub(super) fn settle(&mut self, number: u32, answer: Result<Vec<u8>, Errno>, wakers: &mut Wakers) {
        let slot = &mut self.window[number as usize % WINDOW];
        let Some(OnWire { call, index, .. }) = slot.take_if(|entry| entry.number == number) else {
            return;
        };
        self.on_wire -= 1;
        let settled = call.answer(index, answer);
        wakers.extend(settled.waker);
        if let Some((id, permit)) = settled.orphan {
            self.abort(
                TransactionId {
                    number: id,
                    epoch: self.epoch,
                },
                permit,
            );
        }
        if let Purpose::SetAgain(token) = call.purpose
            && let Some(inbox) = self.watches.get(&token)
        {
            match call.refusal() {
                None => wakers.extend(inbox.resync()),
                Some(errno) => {
                    tracing::warn!(path = %inbox.path(), %errno, "cannot set a watch again");
                    wakers.extend(inbox.end());
                    self.watches.remove(&token);
                }
            }
        }
    }

    /// Queues the abort of a transaction that has no owner.
    pub(super) fn abort(&mut self, id: TransactionId, permit: Option<OwnedSemaphorePermit>) {
        if id.epoch != self.epoch || self.outgoing.is_none() {
            return;
        }
        let end = vec![Request::TransactionEnd { commit: false }];
        if let Ok(call) = Call::new(end, Some(id), Purpose::None) {
            call.hold(permit);
            self.enqueue(call);
        }
    }

    fn fill_window(&mut self) {
        let Some(outgoing) = &mut self.outgoing else {
            return;
        };
        while self.on_wire < outgoing.window()
            && let Some((call, next)) = self.queue.front_mut()
            && let Some(slot) = self.window.iter().position(Option::is_none)
        {
            let (call, index) = (call.clone(), *next);
            *next += 1;
            if *next == call.requests.len() {
                self.queue.pop_front();
            }
            self.serial = self.serial.wrapping_add(1);
            let number = (self.serial << WINDOW.trailing_zeros()) + slot as u32;
            let request = &call.requests[index];
            let within = call.within.map_or(0, |id| id.number);
            append_frame(outgoing.buffer(), request.kind() as u32, number, within, |to| {
                request.fill(to)
            });
            outgoing.appended(request.kind(), number);
            self.window[slot] = Some(OnWire { number, call, index });
            self.on_wire += 1;
        }
    }

    fn expected(&self, number: u32) -> Option<Kind> {
        let entry = self.window[number as usize % WINDOW].as_ref()?;
        (entry.number == number).then(|| entry.call.requests[entry.index].kind())
    }

    fn event(&mut self, payload: &[u8], wakers: &mut Wakers) {
        let mut parts = strings(payload);
        let (path, token) = (parts.next(), parts.next());
        let Some(inbox) = token.and_then(token_number).and_then(|token| self.watches.get(&token)) else {
            return;
        };
        let path = path.and_then(|path| std::str::from_utf8(path).ok());
        wakers.extend(inbox.changed(path.unwrap_or_default()));
    }
}
