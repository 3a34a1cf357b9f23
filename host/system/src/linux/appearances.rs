//! Watch for new and renamed links.

use std::{
    collections::HashMap,
    io,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use netlink_sys::Socket;

use super::{
    links::{RTM_DELLINK, RTM_NEWLINK, all_links, read_name},
    netlink::{Message, Protocol, Sockets, messages, subscribe_to_links, u32_at},
    retry::retry,
};
use crate::{Error, network::IfName};

/// `PF_BRIDGE`, the family of messages about bridge ports, which describe no new link.
const PF_BRIDGE: u8 = 7;

/// Starts the watch, in a thread that ends with the first link after the receiver is dropped.
pub(super) fn watch() -> Result<Receiver<Option<IfName>>, Error> {
    let failed = |error: io::Error| Error::io("watch for network interfaces", &error);
    let socket = subscribe_to_links().map_err(failed)?;
    // The calling thread makes the sockets, because it is in the network namespace to watch.
    let sockets = Sockets::new(Protocol::Route);
    let mut watch = Watch {
        sockets,
        known: HashMap::new(),
    };
    watch.refresh()?;
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name("links".into())
        .spawn(move || watch.run(&socket, &sender))
        .map_err(failed)?;
    Ok(receiver)
}

struct Watch {
    sockets: Sockets,
    known: HashMap<u32, IfName>,
}

impl Watch {
    fn run(mut self, socket: &Socket, sender: &Sender<Option<IfName>>) {
        let mut buffer = Vec::with_capacity(32 * 1024);
        loop {
            buffer.clear();
            let mut names = Vec::new();
            match retry(|| socket.recv(&mut buffer, 0)) {
                Ok(_) => names.extend(messages(&buffer).filter_map(|message| self.apply(&message)).map(Some)),
                // The socket's buffer overflowed or the kernel had no memory: messages were lost.
                Err(_) => {
                    if self.refresh().is_err() {
                        thread::sleep(std::time::Duration::from_millis(100));
                    }
                    names.push(None);
                }
            }
            for name in names {
                if sender.send(name).is_err() {
                    return;
                }
            }
        }
    }

    /// Reads the names of all links.
    fn refresh(&mut self) -> Result<(), Error> {
        let read = |message: &Message<'_>| Some((u32_at(message.body, 4)?, read_name(message)?));
        let all = self
            .sockets
            .query(&all_links(), read)
            .map_err(|failure| failure.of("look for network interfaces"))?;
        self.known = all.into_iter().collect();
        Ok(())
    }

    /// Applies a message, and returns the name if it is new.
    fn apply(&mut self, message: &Message<'_>) -> Option<IfName> {
        if message.body.first() == Some(&PF_BRIDGE) {
            return None;
        }
        let index = u32_at(message.body, 4)?;
        match message.kind {
            RTM_NEWLINK => {
                let name = read_name(message)?;
                let before = self.known.insert(index, name.clone());
                (before.as_ref() != Some(&name)).then_some(name)
            }
            RTM_DELLINK => {
                self.known.remove(&index);
                None
            }
            _ => None,
        }
    }
}
