//! One connection to the store, made again whenever it is lost.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::{
    Options,
    call::{Answers, Call, Purpose},
    state::{State, Wakers},
    transaction::Id,
    transport::{self, Arrival, Incoming, Outgoing, Sent},
    watch::Inbox,
};
use crate::{
    Endpoint, Errno, Error, Reply, Request,
    backoff::{self, Chance},
    wire::{HEADER, PAYLOAD_MAX, first_frame},
};

/// Bytes read at once. It holds the longest message, and a window full of common ones.
const BUFFER: usize = 4 * (HEADER + PAYLOAD_MAX);

/// How often to look for more bytes before sleeping while replies are outstanding: some 5 microseconds.
const LOOKS: u32 = 50;

/// The replies to the requests of a call, in their order.
pub(super) type Replies = Vec<Result<Reply, Error>>;

/// A connection, shared between its callers and the task that reads from it.
#[derive(Debug)]
pub(super) struct Connection {
    endpoint: Endpoint,
    options: Options,
    chance: Chance,
    state: Mutex<State>,
    /// Tells the task that the connection is lost, or that bytes are left to be sent.
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

    /// Sends a call and waits for all replies. Says on which connection.
    pub(super) async fn ask_on(&self, call: Arc<Call>) -> Result<(u64, Replies), Error> {
        let epoch = self.submit(call.clone())?;
        let abort = |number, permit| self.abort(Id { number, epoch }, permit);
        let answers = Answers {
            call: &call,
            abort: &abort,
            done: false,
        };
        match tokio::time::timeout(self.options.deadline, answers).await {
            Ok(answers) => Ok((epoch, answers?)),
            Err(_) => {
                // Replies come in order: what is late holds up all that follows. Only a new connection can help.
                tracing::warn!(endpoint = %self.endpoint, "xenstored does not answer");
                self.disconnect(Some(epoch));
                Err(Error::Timeout(self.options.deadline))
            }
        }
    }

    /// Queues a call and sends what the window allows. Says on which connection.
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

    /// Aborts a transaction, without waiting for it.
    pub(super) fn abort(&self, id: Id, permit: Option<OwnedSemaphorePermit>) {
        let mut state = self.state();
        state.abort(id, permit);
        self.pump(state);
    }

    /// Registers the inbox of a new watch: its token.
    pub(super) fn add_watch(&self, path: &crate::Path) -> (u64, Arc<Inbox>) {
        let mut state = self.state();
        state.last_token += 1;
        let token = state.last_token;
        let inbox = Arc::new(Inbox::new(path.clone(), self.options.events));
        state.watches.insert(token, inbox.clone());
        (token, inbox)
    }

    /// Forgets a watch that the store does not have.
    pub(super) fn forget_watch(&self, token: u64) {
        self.state().watches.remove(&token);
    }

    /// Forgets a watch, here and in the store.
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

    /// Gives up the connection of that epoch, or whichever there is; what waits for it fails.
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

    /// Takes a new connection into use, and sets every watch again. Says its epoch.
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

    /// Handles the whole messages at the start of the bytes, in one go; says how many bytes they were, and whether more
    /// replies are outstanding.
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
                Err(oversized) => break Err(Error::Protocol(format!("nonsense: {oversized}"))),
            }
        };
        let outstanding = state.is_waiting();
        self.pump(state);
        wake(wakers);
        result.map(|used| (used, outstanding))
    }

    /// Handles what the kernel refused to pass on.
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

    /// What to wait for if not everything is sent; an error if this connection has been given up.
    fn unsent(&self, epoch: u64) -> Result<Option<transport::Room>, Error> {
        let state = self.state();
        match &state.outgoing {
            Some(outgoing) if state.epoch == epoch => Ok(outgoing.room()),
            _ => Err(Error::Disconnected),
        }
    }

    /// Sends what the window allows.
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

/// The task of a connection: reads from it, and makes it again when it is lost.
pub(super) async fn run(connection: Arc<Connection>, mut incoming: Incoming, mut epoch: u64) {
    loop {
        let lost = serve(&connection, epoch, &mut incoming).await;
        connection.disconnect(Some(epoch));
        tracing::warn!(endpoint = %connection.endpoint, cause = %lost, "the connection to xenstored is lost");
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
            Err(error) => tracing::debug!(endpoint = %connection.endpoint, %error, "xenstored cannot be reached"),
        }
    }
    unreachable!("the attempts have no end")
}

/// Reads until the connection is lost; says why.
async fn serve(connection: &Connection, epoch: u64, incoming: &mut Incoming) -> Error {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    let mut room = None;
    let mut more_is_near = false;
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
                            more_is_near = outstanding;
                        }
                        Err(error) => return error,
                    }
                }
                Ok(Arrival::Refused(refused)) => connection.refuse(epoch, refused),
                Err(error) => return Error::Protocol(format!("no more: {error}")),
            },
            () = connection.news.notified() => match connection.unsent(epoch) {
                Ok(left) => room = left,
                Err(error) => return error,
            },
            () = look_again(), if more_is_near => more_is_near = false,
            () = wait_for(&room), if room.is_some() => {
                connection.pump(connection.state());
                room = None;
            }
        }
    }
}

/// Lets the runtime look for bytes a few times before it sleeps.
///
/// xenstored writes header and payload of every reply with a system call each, microseconds apart, and each of them costs
/// it twice as much when it has to wake us.
async fn look_again() {
    for _ in 0..LOOKS {
        tokio::task::yield_now().await;
    }
}

async fn wait_for(room: &Option<transport::Room>) {
    if let Some(room) = room {
        room.wait().await;
    }
}

fn wake(wakers: Vec<Waker>) {
    for waker in wakers {
        waker.wake();
    }
}
