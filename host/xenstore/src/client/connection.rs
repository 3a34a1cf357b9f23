//! One connection to the store, made again whenever it is lost.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{
    call::{Answers, Call, Purpose, TransactionId},
    inbox::Inbox,
    options::Options,
    state::{State, Wakers},
    transport::{self, Arrival, Incoming, Outgoing, Sent},
};
use crate::{
    Endpoint, Errno, Error, Reply, Request,
    backoff::{self, Chance},
    wire::{HEADER, PAYLOAD_MAX, first_frame},
};

/// Size of the read buffer: the longest message, or a window full of common ones.
const BUFFER: usize = 4 * (HEADER + PAYLOAD_MAX);

/// Number of polls for more bytes before the task sleeps while replies are outstanding: some 5 microseconds.
const POLLS: u32 = 50;

/// Replies to the requests of a call, in their order.
pub(super) type Replies = Vec<Result<Reply, Error>>;

/// A connection, shared between its callers and the task that reads from it.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    options: Options,
    chance: Chance,
    state: Mutex<State>,
    /// Notifies the task that the connection is lost, or that bytes are left to send.
    news: Notify,
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint, options: Options) -> Self {
        Self {
            endpoint,
            chance: Chance::of(options.seed),
            options,
            state: Mutex::default(),
            news: Notify::new(),
        }
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn chance(&self) -> &Chance {
        &self.chance
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state().outgoing.is_some()
    }

    /// Sends a call and waits for all replies.
    pub(super) async fn ask(&self, call: Arc<Call>) -> Result<Replies, Error> {
        Ok(self.ask_on(call).await?.1)
    }

    /// Sends a call and waits for all replies. Returns the epoch of the connection too.
    pub(super) async fn ask_on(&self, call: Arc<Call>) -> Result<(u64, Replies), Error> {
        let epoch = self.submit(call.clone())?;
        let abort = |number, permit| self.abort(TransactionId { number, epoch }, permit);
        let answers = Answers {
            call: &call,
            abort: &abort,
            done: false,
        };
        match tokio::time::timeout(self.options.deadline, answers).await {
            Ok(answers) => Ok((epoch, answers?)),
            Err(_) => {
                // Replies come in order, so that a late one delays all others. Only a new connection helps.
                tracing::warn!(endpoint = %self.endpoint, "xenstored did not answer in time");
                self.disconnect(Some(epoch));
                Err(Error::Timeout(self.options.deadline))
            }
        }
    }

    /// Queues a call and sends as much as the window allows. Returns the epoch of the connection.
    pub(super) fn submit(&self, call: Arc<Call>) -> Result<u64, Error> {
        let mut state = self.state();
        if state.outgoing.is_none() || call.within.is_some_and(|id| id.epoch != state.epoch) {
            return Err(Error::Disconnected);
        }
        let epoch = state.epoch;
        state.enqueue(call);
        self.pump(state);
        Ok(epoch)
    }

    /// Aborts a transaction, without waiting.
    pub(super) fn abort(&self, id: TransactionId, permit: Option<OwnedSemaphorePermit>) {
        let mut state = self.state();
        state.abort(id, permit);
        self.pump(state);
    }

    /// Registers a new watch. Returns its token and inbox.
    pub(super) fn add_watch(&self, path: &crate::Path) -> (u64, Arc<Inbox>) {
        let mut state = self.state();
        state.last_token += 1;
        let token = state.last_token;
        let inbox = Arc::new(Inbox::new(path.clone(), self.options.events));
        state.watches.insert(token, inbox.clone());
        (token, inbox)
    }

    /// Removes a watch that the store does not have.
    pub(super) fn forget_watch(&self, token: u64) {
        self.state().watches.remove(&token);
    }

    /// Removes a watch, here and in the store.
    pub(super) fn remove_watch(&self, token: u64) {
        let mut state = self.state();
        let Some(inbox) = state.watches.remove(&token) else {
            return;
        };
        if state.outgoing.is_some()
            && let Ok(call) = Call::new(vec![Request::Unwatch(inbox.path().clone(), token)], None, Purpose::None)
        {
            state.enqueue(call);
            self.pump(state);
        }
    }

    /// Closes the connection of the epoch, or any; its calls fail.
    pub(super) fn disconnect(&self, epoch: Option<u64>) {
        let mut state = self.state();
        if epoch.is_some_and(|epoch| epoch != state.epoch) {
            return;
        }
        let mut wakers = Wakers::new();
        state.disconnect(&mut wakers);
        drop(state);
        self.news.notify_one();
        wake(wakers);
    }

    /// Starts to use a new connection, and sets every watch again. Returns its epoch.
    pub(super) fn install(&self, outgoing: Outgoing) -> u64 {
        let mut state = self.state();
        state.epoch += 1;
        state.outgoing = Some(outgoing);
        let watches: Vec<_> = state
            .watches
            .iter()
            .map(|(token, inbox)| (*token, inbox.path().clone()))
            .collect();
        for (token, path) in watches {
            if let Ok(call) = Call::new(vec![Request::Watch(path, token)], None, Purpose::SetAgain(token)) {
                state.enqueue(call);
            }
        }
        let epoch = state.epoch;
        self.pump(state);
        epoch
    }

    /// Handles the whole messages at the start of the bytes. Returns their length, and whether more replies are
    /// outstanding.
    fn receive(&self, epoch: u64, bytes: &[u8]) -> Result<(usize, bool), Error> {
        let mut state = self.state();
        if state.epoch != epoch {
            return Err(Error::Disconnected);
        }
        let mut wakers = Wakers::new();
        let mut used = 0;
        let result = loop {
            match first_frame(&bytes[used..]) {
                Ok(None) => break Ok(used),
                Ok(Some((frame, length))) => {
                    used += length;
                    if let Err(error) = state.receive(frame, &mut wakers) {
                        break Err(error);
                    }
                }
                Err(oversized) => break Err(Error::Protocol(oversized.to_string())),
            }
        };
        let outstanding = state.is_waiting();
        self.pump(state);
        wake(wakers);
        result.map(|used| (used, outstanding))
    }

    /// Fails the requests that the kernel refused.
    fn refuse(&self, epoch: u64, refused: Vec<(u32, Errno)>) {
        let mut state = self.state();
        let mut wakers = Wakers::new();
        if state.epoch == epoch {
            for (number, errno) in refused {
                state.settle(number, Err(errno), &mut wakers);
            }
        }
        self.pump(state);
        wake(wakers);
    }

    /// Returns the socket space to wait for while bytes are left to send. Fails if this connection is closed.
    fn unsent(&self, epoch: u64) -> Result<Option<transport::SendSpace>, Error> {
        let state = self.state();
        match &state.outgoing {
            Some(outgoing) if state.epoch == epoch => Ok(outgoing.send_space()),
            _ => Err(Error::Disconnected),
        }
    }

    /// Sends as much as the window allows.
    fn pump(&self, mut state: MutexGuard<'_, State>) {
        let mut wakers = Wakers::new();
        let sent = state.pump(&mut wakers);
        if sent == Sent::Broken {
            state.disconnect(&mut wakers);
        }
        drop(state);
        if sent != Sent::All {
            self.news.notify_one();
        }
        wake(wakers);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads from the connection, and makes it again when it is lost.
pub(super) async fn run(connection: Arc<Connection>, mut incoming: Incoming, mut epoch: u64) {
    loop {
        let lost = serve(&connection, epoch, &mut incoming).await;
        connection.disconnect(Some(epoch));
        tracing::warn!(endpoint = %connection.endpoint, cause = %lost, "connection to xenstored lost");
        let outgoing;
        (incoming, outgoing) = reconnect(&connection).await;
        epoch = connection.install(outgoing);
        tracing::info!(endpoint = %connection.endpoint, "connected to xenstored again");
    }
}

async fn reconnect(connection: &Connection) -> (Incoming, Outgoing) {
    let (first, most) = connection.options.reconnect;
    for attempt in 0.. {
        tokio::time::sleep(backoff::wait(first, most, attempt, &connection.chance)).await;
        match transport::open(&connection.endpoint).await {
            Ok(ends) => return ends,
            Err(error) => tracing::debug!(endpoint = %connection.endpoint, %error, "cannot reach xenstored"),
        }
    }
    unreachable!("the attempts have no end")
}

/// Reads until the connection is lost. Returns the cause.
async fn serve(connection: &Connection, epoch: u64, incoming: &mut Incoming) -> Error {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    let mut send_space = None;
    let mut expects_more = false;
    loop {
        tokio::select! {
            biased;
            arrival = incoming.read(&mut buffer[filled..]) => match arrival {
                Ok(Arrival::Bytes(read)) => {
                    filled += read;
                    match connection.receive(epoch, &buffer[..filled]) {
                        Ok((used, outstanding)) => {
                            buffer.copy_within(used..filled, 0);
                            filled -= used;
                            expects_more = outstanding;
                        }
                        Err(error) => return error,
                    }
                }
                Ok(Arrival::Refused(refused)) => connection.refuse(epoch, refused),
                Err(error) => return Error::Protocol(format!("nothing more: {error}")),
            },
            () = connection.news.notified() => match connection.unsent(epoch) {
                Ok(left) => send_space = left,
                Err(error) => return error,
            },
            () = poll_again(), if expects_more => expects_more = false,
            () = wait_for(&send_space), if send_space.is_some() => {
                connection.pump(connection.state());
                send_space = None;
            }
        }
    }
}

/// Lets the runtime poll for bytes a few times before it sleeps.
///
/// xenstored writes header and payload of every reply with a system call each, microseconds apart, and each costs twice
/// as much when it has to wake this process.
async fn poll_again() {
    for _ in 0..POLLS {
        tokio::task::yield_now().await;
    }
}

async fn wait_for(send_space: &Option<transport::SendSpace>) {
    if let Some(send_space) = send_space {
        send_space.wait().await;
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
