//! `/dev/xen/xenbus`, the kernel's device for the xenstored of another domain.
//!
//! It differs from the socket (drivers/xen/xenbus/xenbus_dev_frontend.c): one `write` takes one message and drops further
//! bytes; it blocks where the kernel itself asks xenstored (WATCH, UNWATCH); `write` fails with the error of a message that
//! the kernel refuses; and `poll` never reports that the device is writable.

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

use super::outcome::{Arrival, Sent};
use crate::{Errno, wire::Kind};

/// `O_NONBLOCK` (asm-generic/fcntl.h, as on x86, Arm and RISC-V).
const NONBLOCK: i32 = 0o4000;

pub(super) fn open(path: &Path) -> io::Result<(Reader, Writer)> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(NONBLOCK)
        .open(path)?;
    over(file.try_clone()?, file)
}

/// Starts on open files, of which `replies` must not block.
pub(in crate::client) fn over(replies: File, requests: File) -> io::Result<(Reader, Writer)> {
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
    // A pipe of tokio's is any file that can be polled for reading, as the device can.
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
    Ok((reader, writer))
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
    /// Start of the next message in the buffer, and the messages before it.
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

    /// Writes the messages that do not block, and leaves the rest to the thread.
    pub(super) fn flush(&mut self, refused: &mut Vec<(u32, Errno)>) -> Sent {
        self.buffer.clear();
        self.start = 0;
        while let Some(message) = self.messages.pop_front() {
            let blocks = matches!(message.kind, Kind::Watch | Kind::Unwatch);
            // While the thread writes, the kernel's lock on the open file would block this write too.
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
    /// Messages of the thread that the kernel refused, or the error that has ended the thread.
    refused: Mutex<io::Result<Vec<(u32, Errno)>>>,
    /// Messages that the thread has not written yet.
    waiting: AtomicUsize,
    news: Notify,
}

impl Shared {
    /// Writes one message. Returns the error with which the kernel refused it, or fails if the connection is broken.
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

/// Writes messages that may block, on the thread, until the writer is dropped.
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
