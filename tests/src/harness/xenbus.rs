//! Xenbus of a domain, offered as a socket: the page that the domain shares with xenstored, and the event channel.
//!
//! A program that uses it has the rights of that domain and no more. It plays a guest kernel's /dev/xen/xenbus
//! (drivers/xen/xenbus/xenbus_{comms,dev_frontend}.c), for one program at a time. Whole messages go into the ring. The
//! watches and transactions of a program end with its connection. The page is `struct xenstore_domain_interface` of
//! xen/include/public/io/xs_wire.h, in a file that xenstored has mapped.

mod suspension;

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::AsFd,
        unix::{
            fs::FileExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use suspension::{Known, Schedule, WATCH};

/// Size of the page, and of each of its two rings.
const PAGE: u64 = 4096;
const RING: u32 = 1024;
/// Offsets in the page of the rings and of their indices: consumer, producer.
const REQUESTS: Ring = Ring { at: 0, indices: 2048 };
const RESPONSES: Ring = Ring {
    at: 1024,
    indices: 2056,
};

/// Size of a message's header: type, request, transaction, length.
const HEADER: usize = 16;
/// `XS_RESET_WATCHES`, which ends all watches and transactions of the domain.
const RESET_WATCHES: u32 = 21;
/// Request id of our own requests. No client uses it.
const OWN_REQUEST: u32 = 0xffff_fff0;
/// Longest sleep before the thread checks whether it has to stop.
const NAP: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
struct Ring {
    at: u64,
    indices: u64,
}

/// Xenbus of a domain. Dropping it ends its thread.
#[derive(Debug)]
pub struct Xenbus {
    socket: PathBuf,
    schedule: Arc<Schedule>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Xenbus {
    /// Starts the xenbus of a domain that is not introduced yet. `domains` is the directory of the preloaded library.
    pub(super) fn start(domains: &Path, domid: u16) -> Result<Self> {
        let name = domid.to_string();
        for directory in ["page", "wake", "xenbus"] {
            fs::create_dir_all(domains.join(directory))?;
        }
        let page = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(domains.join("page").join(&name))?;
        page.set_len(PAGE)?;
        let wake = UnixDatagram::bind(domains.join("wake").join(&name))?;
        wake.set_nonblocking(true)?;
        let socket = domains.join("xenbus").join(&name);
        let listener = UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(AtomicBool::new(false));
        let schedule = Arc::new(Schedule::default());
        let mut line = Line {
            page,
            wake,
            bell: domains.join(format!("{domid}.bell")),
            stop: Arc::clone(&stop),
            schedule: Arc::clone(&schedule),
            partial: Vec::new(),
            known: Known::default(),
        };
        let thread = thread::Builder::new()
            .name(format!("xenbus-{domid}"))
            .spawn(move || line.serve(&listener))?;
        Ok(Self {
            socket,
            schedule,
            stop,
            thread: Some(thread),
        })
    }

    /// Returns the path of the socket, for `XENSTORED_PATH`.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Suspends and resumes the domain before the `nth` request in a transaction that its program makes from now on; 1
    /// is the next.
    pub fn suspend_before(&self, nth: usize) {
        self.schedule.set(nth);
    }

    /// Returns true if the suspension has happened.
    pub fn suspended(&self) -> bool {
        self.schedule.is_over()
    }
}

impl Drop for Xenbus {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Domain's end of the page.
struct Line {
    page: File,
    wake: UnixDatagram,
    bell: PathBuf,
    stop: Arc<AtomicBool>,
    schedule: Arc<Schedule>,
    known: Known,
    /// Beginning of a message from xenstored whose rest has not arrived.
    partial: Vec<u8>,
}

impl Line {
    #[allow(clippy::print_stderr, reason = "a player reports errors in the test's output")]
    fn serve(&mut self, listener: &UnixListener) {
        while !self.stop.load(Relaxed) {
            match listener.accept() {
                Ok((client, _)) => {
                    // An error ends the connection like the client's own end.
                    let _ = self.connect(client);
                    if let Err(error) = self.hang_up() {
                        eprintln!("the played xenbus: {error}");
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => drop(ready(listener, None)),
                Err(error) => {
                    eprintln!("the played xenbus: {error}");
                    return;
                }
            }
        }
    }

    /// Passes messages in both directions, until the client disconnects.
    fn connect(&mut self, mut client: UnixStream) -> io::Result<()> {
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        while !self.stop.load(Relaxed) {
            if ready(&client, Some(&self.wake))? {
                let length = client.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                received.extend_from_slice(&buffer[..length]);
                while let Some(message) = take_message(&mut received) {
                    self.request(&message, &client)?;
                }
            }
            self.receive(Some(&client))?;
        }
        Ok(())
    }

    /// Ends a client's watches and transactions, and discards the messages for it.
    fn hang_up(&mut self) -> io::Result<()> {
        self.known = Known::default();
        self.ask(RESET_WATCHES, b"\0", None)
    }

    /// Handles a request of the program.
    fn request(&mut self, message: &[u8], mut client: &UnixStream) -> io::Result<()> {
        if self.schedule.is_due(message) {
            self.known.suspended();
            self.ask(RESET_WATCHES, b"\0", Some(client))?;
            for watch in self.known.watches.clone() {
                self.ask(WATCH, &watch, Some(client))?;
            }
        }
        match self.known.request(message) {
            Some(answer) => client.write_all(&answer),
            None => self.send(message, Some(client)),
        }
    }

    /// Sends a request of our own, and waits for the answer.
    fn ask(&mut self, operation: u32, body: &[u8], client: Option<&UnixStream>) -> io::Result<()> {
        let words = [operation, OWN_REQUEST, 0, body.len() as u32];
        let mut message: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        message.extend_from_slice(body);
        self.send(&message, client)?;
        while !self.stop.load(Relaxed) {
            if self.receive(client)? {
                return Ok(());
            }
            ready(&self.wake, None)?;
        }
        Ok(())
    }

    /// Writes a message into the ring, and receives replies meanwhile.
    fn send(&mut self, mut message: &[u8], client: Option<&UnixStream>) -> io::Result<()> {
        while !message.is_empty() && !self.stop.load(Relaxed) {
            let (consumed, produced) = self.indices(REQUESTS)?;
            let free = (RING - produced.wrapping_sub(consumed)) as usize;
            let offset = produced % RING;
            let length = message.len().min(free).min((RING - offset) as usize);
            if length == 0 {
                ready(&self.wake, None)?;
                self.receive(client)?;
                continue;
            }
            self.page
                .write_all_at(&message[..length], REQUESTS.at + u64::from(offset))?;
            let produced = produced.wrapping_add(length as u32);
            self.page.write_all_at(&produced.to_ne_bytes(), REQUESTS.indices + 4)?;
            fs::write(&self.bell, "")?;
            message = &message[length..];
        }
        Ok(())
    }

    /// Reads the ring and passes complete messages to the client. Returns true if one answered our own request.
    fn receive(&mut self, client: Option<&UnixStream>) -> io::Result<bool> {
        while self.wake.recv(&mut [0; 8]).is_ok() {}
        let mut answered = false;
        loop {
            let (consumed, produced) = self.indices(RESPONSES)?;
            let offset = consumed % RING;
            let length = produced.wrapping_sub(consumed).min(RING - offset);
            if length == 0 {
                return Ok(answered);
            }
            let mut part = vec![0; length as usize];
            self.page.read_exact_at(&mut part, RESPONSES.at + u64::from(offset))?;
            let consumed = consumed.wrapping_add(length);
            self.page.write_all_at(&consumed.to_ne_bytes(), RESPONSES.indices)?;
            fs::write(&self.bell, "")?;
            self.partial.extend_from_slice(&part);
            while let Some(message) = take_message(&mut self.partial) {
                if word(&message, 1) == OWN_REQUEST {
                    answered = true;
                } else if let Some(mut client) = client {
                    self.known.reply(&message);
                    client.write_all(&message)?;
                }
            }
        }
    }

    /// Returns the indices of consumer and producer.
    fn indices(&self, ring: Ring) -> io::Result<(u32, u32)> {
        let mut both = [0; 8];
        self.page.read_exact_at(&mut both, ring.indices)?;
        Ok((word(&both, 0), word(&both, 1)))
    }
}

/// Removes the first message, if it is complete.
fn take_message(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = (bytes.len() >= HEADER).then(|| HEADER + word(bytes, 3) as usize)?;
    (bytes.len() >= length).then(|| bytes.drain(..length).collect())
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let at = index * 4;
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Waits up to [`NAP`] for either descriptor. Returns true if the first is ready.
fn ready(one: &impl AsFd, other: Option<&UnixDatagram>) -> io::Result<bool> {
    let mut descriptors = vec![PollFd::new(one, PollFlags::IN)];
    descriptors.extend(other.map(|other| PollFd::new(other, PollFlags::IN)));
    let nap = Timespec::try_from(NAP).map_err(io::Error::other)?;
    match poll(&mut descriptors, Some(&nap)) {
        Ok(_) => Ok(!descriptors[0].revents().is_empty()),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
