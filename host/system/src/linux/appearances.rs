//! Links as they appear, or take another name.

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

/// `PF_BRIDGE`: messages about the ports of bridges, which are no links of their own.
const PF_BRIDGE: u8 = 7;

/// Watches from here on, in a thread that ends with the first link after the receiver is dropped.
pub(super) fn watch() -> Result<Receiver<Option<IfName>>, Error> {
    let failed = |error: io::Error| Error::io("watch for network interfaces", &error);
    let socket = subscribe_to_links().map_err(failed)?;
    // The sockets are made here: the thread that calls knows the network namespace.
    let sockets = Sockets::new(Protocol::Route);
    let mut watch = Watch {
        sockets,
        known: HashMap::new(),
    };
    watch.look()?;
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
                Ok(_) => names.extend(messages(&buffer).filter_map(|message| self.learn(&message)).map(Some)),
                // The kernel had more to say than the socket could hold, or no memory: what we know is out of date.
                Err(_) => {
                    if self.look().is_err() {
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

    /// Learns all there are.
    fn look(&mut self) -> Result<(), Error> {
        let read = |message: &Message<'_>| Some((u32_at(message.body, 4)?, read_name(message)?));
        let all = self
            .sockets
            .ask(&all_links(), read)
            .map_err(|failure| failure.of("look for network interfaces"))?;
        self.known = all.into_iter().collect();
        Ok(())
    }

    /// The name that a message makes known.
    fn learn(&mut self, message: &Message<'_>) -> Option<IfName> {
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
