//! A domain's own way to xenstored: the page that they share, and the event channel, offered as a socket.
//!
//! Through it a program has the rights of that domain and no more. Plays a guest kernel's /dev/xen/xenbus
//! (drivers/xen/xenbus/xenbus_{comms,dev_frontend}.c), for one program at a time: whole messages go into the ring, and what
//! a program leaves behind, its watches and transactions, goes when it does. The page is that of
//! xen/include/public/io/xs_wire.h, `struct xenstore_domain_interface`, in a file that xenstored has mapped.

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

/// The size of the page, and of each of its two rings.
const PAGE: u64 = 4096;
const RING: u32 = 1024;
/// Where in the page the rings are, and their indices: consumer, producer.
const REQUESTS: Ring = Ring { at: 0, indices: 2048 };
const RESPONSES: Ring = Ring {
    at: 1024,
    indices: 2056,
};

/// A message's header: type, request, transaction, length.
const HEADER: usize = 16;
/// `XS_RESET_WATCHES`: all watches and transactions of the domain end.
const RESET_WATCHES: u32 = 21;
/// What no client names a request.
const OWN_REQUEST: u32 = 0xffff_fff0;
/// How long it waits at most before it sees that it is to stop.
const NAP: Duration = Duration::from_millis(50);

#[derive(Clone, Copy)]
struct Ring {
    at: u64,
    indices: u64,
}

/// A domain's xenbus. It ends when this is dropped.
#[derive(Debug)]
pub struct Xenbus {
    socket: PathBuf,
    schedule: Arc<Schedule>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Xenbus {
    /// That of a domain that is not introduced yet. `domains` is the directory of the preloaded library.
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
            heard: Vec::new(),
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

    /// The socket, for `XENSTORED_PATH`.
    pub fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// Has the domain suspended, and resumed at once, before that one of the requests that its program makes in
    /// transactions from now on: 1 is the next.
    pub fn suspend_before(&self, nth: usize) {
        self.schedule.set(nth);
    }

    /// Whether that has happened.
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

/// The domain's end of the page.
struct Line {
    page: File,
    wake: UnixDatagram,
    bell: PathBuf,
    stop: Arc<AtomicBool>,
    schedule: Arc<Schedule>,
    known: Known,
    /// The beginning of a message that xenstored has not said to its end.
    heard: Vec<u8>,
}

impl Line {
    #[allow(clippy::print_stderr, reason = "the test's own output is the only place for it")]
    fn serve(&mut self, listener: &UnixListener) {
        while !self.stop.load(Relaxed) {
            match listener.accept() {
                Ok((client, _)) => {
                    // Its end, whatever ended it.
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

    /// Passes messages on, until the client goes.
    fn connect(&mut self, mut client: UnixStream) -> io::Result<()> {
        let mut said = Vec::new();
        let mut room = [0; 4096];
        while !self.stop.load(Relaxed) {
            if ready(&client, Some(&self.wake))? {
                let length = client.read(&mut room)?;
                if length == 0 {
                    return Ok(());
                }
                said.extend_from_slice(&room[..length]);
                while let Some(message) = whole(&mut said) {
                    self.request(&message, &client)?;
                }
            }
            self.hear(Some(&client))?;
        }
        Ok(())
    }

    /// Ends what a client has left behind, and takes all that is still meant for it.
    fn hang_up(&mut self) -> io::Result<()> {
        self.known = Known::default();
        self.ask(RESET_WATCHES, b"\0", None)
    }

    /// Takes a request of the program's.
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
            None => self.say(message, Some(client)),
        }
    }

    /// Asks for something of its own, and waits until that is done.
    fn ask(&mut self, operation: u32, body: &[u8], client: Option<&UnixStream>) -> io::Result<()> {
        let words = [operation, OWN_REQUEST, 0, body.len() as u32];
        let mut message: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        message.extend_from_slice(body);
        self.say(&message, client)?;
        while !self.stop.load(Relaxed) {
            if self.hear(client)? {
                return Ok(());
            }
            ready(&self.wake, None)?;
        }
        Ok(())
    }

    /// Puts a message into the ring, and takes what comes meanwhile.
    fn say(&mut self, mut message: &[u8], client: Option<&UnixStream>) -> io::Result<()> {
        while !message.is_empty() && !self.stop.load(Relaxed) {
            let (consumed, produced) = self.indices(REQUESTS)?;
            let room = (RING - produced.wrapping_sub(consumed)) as usize;
            let offset = produced % RING;
            let length = message.len().min(room).min((RING - offset) as usize);
            if length == 0 {
                ready(&self.wake, None)?;
                self.hear(client)?;
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

    /// Takes what is in the ring and passes on what is whole. Whether the answer to the own request was among it.
    fn hear(&mut self, client: Option<&UnixStream>) -> io::Result<bool> {
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
            self.heard.extend_from_slice(&part);
            while let Some(message) = whole(&mut self.heard) {
                if word(&message, 1) == OWN_REQUEST {
                    answered = true;
                } else if let Some(mut client) = client {
                    self.known.reply(&message);
                    client.write_all(&message)?;
                }
            }
        }
    }

    /// Consumer and producer.
    fn indices(&self, ring: Ring) -> io::Result<(u32, u32)> {
        let mut both = [0; 8];
        self.page.read_exact_at(&mut both, ring.indices)?;
        Ok((word(&both, 0), word(&both, 1)))
    }
}

/// Takes the first message, if all of it is there.
fn whole(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = (bytes.len() >= HEADER).then(|| HEADER + word(bytes, 3) as usize)?;
    (bytes.len() >= length).then(|| bytes.drain(..length).collect())
}

fn word(bytes: &[u8], index: usize) -> u32 {
    let at = index * 4;
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Waits a little for the one or the other. Whether it is the one.
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
