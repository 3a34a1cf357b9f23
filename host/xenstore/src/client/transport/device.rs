//! `/dev/xen/xenbus`, the kernel's way to the xenstored of another domain.
//!
//! It differs from the socket (drivers/xen/xenbus/xenbus_dev_frontend.c): one `write` takes one message, and what follows
//! in the same `write` is lost; it blocks where the kernel asks xenstored itself (WATCH, UNWATCH); a message that the
//! kernel refuses has its error as that of `write`; and `poll` never tells that one can write.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, sync::Notify};

use super::{Arrival, Incoming, Outgoing, Sent};
use crate::{Errno, wire::Kind};

/// `O_NONBLOCK` (asm-generic/fcntl.h, as on x86, Arm and RISC-V).
const NONBLOCK: i32 = 0o4000;

pub(super) fn open(path: &Path) -> io::Result<(Incoming, Outgoing)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(NONBLOCK)
        .open(path)?;
    over(file.try_clone()?, file)
}

/// Over open files, of which the first must not block when it is read.
pub(in crate::client) fn over(replies: File, requests: File) -> io::Result<(Incoming, Outgoing)> {
    let shared = Arc::new(Shared {
        requests,
        refused: Mutex::new(Ok(Vec::new())),
        waiting: AtomicUsize::new(0),
        news: Notify::new(),
    });
    let (thread, messages) = mpsc::channel();
    thread::Builder::new().name("xenbus-writer".into()).spawn({
        let shared = shared.clone();
        move || write_in_turn(&shared, &messages)
    })?;
    // Tokio's pipe is a file that one can poll for reading, as the device is.
    let reader = Reader {
        replies: Receiver::from_file_unchecked(replies)?,
        shared: shared.clone(),
    };
    let writer = Writer {
        buffer: Vec::new(),
        start: 0,
        messages: VecDeque::new(),
        thread,
        shared,
    };
    Ok((Incoming::Device(reader), Outgoing::Device(writer)))
}

#[derive(Debug)]
pub(in crate::client) struct Reader {
    replies: Receiver,
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<Arrival> {
        loop {
            let refused = self.shared.take_refused()?;
            if !refused.is_empty() {
                return Ok(Arrival::Refused(refused));
            }
            tokio::select! {
                read = self.replies.read(buffer) => return read.map(Arrival::Bytes),
                () = self.shared.news.notified() => {}
            }
        }
    }
}

#[derive(Debug)]
pub(in crate::client) struct Writer {
    /// Whole messages.
    pub(super) buffer: Vec<u8>,
    /// Where in it the next one starts, and those before it.
    start: usize,
    messages: VecDeque<Message>,
    thread: mpsc::Sender<Message>,
    shared: Arc<Shared>,
}

impl Writer {
    pub(super) fn appended(&mut self, kind: Kind, request: u32) {
        let bytes = self.buffer[self.start..].to_vec();
        self.start = self.buffer.len();
        self.messages.push_back(Message { kind, request, bytes });
    }

    /// Writes at once what does not block, and leaves the rest to the thread.
    pub(super) fn flush(&mut self, refused: &mut Vec<(u32, Errno)>) -> Sent {
        self.buffer.clear();
        self.start = 0;
        while let Some(message) = self.messages.pop_front() {
            let blocks = matches!(message.kind, Kind::Watch | Kind::Unwatch);
            // While the thread writes, the kernel's lock on the open file would block us as well.
            if blocks || self.shared.waiting.load(Ordering::Acquire) > 0 {
                self.shared.waiting.fetch_add(1, Ordering::AcqRel);
                if self.thread.send(message).is_err() {
                    return Sent::Broken;
                }
                continue;
            }
            match self.shared.write(&message) {
                Ok(None) => {}
                Ok(Some(errno)) => refused.push((message.request, errno)),
                Err(_) => return Sent::Broken,
            }
        }
        Sent::All
    }
}

#[derive(Debug)]
struct Message {
    kind: Kind,
    request: u32,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    requests: File,
    /// What the kernel refused the thread, or why the thread has ended.
    refused: Mutex<io::Result<Vec<(u32, Errno)>>>,
    /// Messages that the thread has not written yet.
    waiting: AtomicUsize,
    news: Notify,
}

impl Shared {
    /// Writes one message: what the kernel says against it, or an error if the connection is broken.
    fn write(&self, message: &Message) -> io::Result<Option<Errno>> {
        loop {
            match (&self.requests).write(&message.bytes) {
                Ok(written) if written == message.bytes.len() => return Ok(None),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.raw_os_error().and_then(Errno::from_number).map(Some).ok_or(error),
            }
        }
    }

    fn take_refused(&self) -> io::Result<Vec<(u32, Errno)>> {
        match &mut *self.refused() {
            Ok(refused) => Ok(std::mem::take(refused)),
            Err(error) => Err(error.kind().into()),
        }
    }

    fn refused(&self) -> MutexGuard<'_, io::Result<Vec<(u32, Errno)>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread: writes what may block, until the writer is gone.
fn write_in_turn(shared: &Shared, messages: &mpsc::Receiver<Message>) {
    for message in messages {
        let written = shared.write(&message);
        shared.waiting.fetch_sub(1, Ordering::AcqRel);
        let broken = match written {
            Ok(None) => continue,
            Ok(Some(errno)) => {
                if let Ok(refused) = &mut *shared.refused() {
                    refused.push((message.request, errno));
                }
                false
            }
            Err(error) => {
                *shared.refused() = Err(error);
                true
            }
        };
        shared.news.notify_one();
        if broken {
            return;
        }
    }
}
