//! The store and its clients: the effect of every request.

mod commit;
mod domain_requests;
mod watches;

use std::{collections::BTreeMap, sync::Arc};

use xenplug_xenstore::{
    Errno, Path, Permission,
    protocol::{Frame, Kind, PAYLOAD_MAX, decimal, first_string, only_string, strings},
};

use crate::{
    domains::{Caller, Domains, home},
    options::Options,
    outbox::Outbox,
    transaction::Transaction,
    tree::Tree,
    view::{Change, Need, Special, View},
};

/// Longest path, without `/local/domain/<domid>/` (tools/xenstored/core.c, `quota_max_path_len`).
const PATH_MAX: usize = 2048;

/// Counts of a server's nodes and of its clients' state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Nodes of the store, the root included.
    pub nodes: usize,
    /// Clients.
    pub connections: usize,
    /// Watches of all clients.
    pub watches: usize,
    /// Open transactions.
    pub transactions: usize,
}

/// The store and its clients.
#[derive(Debug)]
pub(crate) struct Store {
    options: Options,
    tree: Tree,
    domains: Domains,
    special: Special,
    peers: BTreeMap<u64, Peer>,
    last_peer: u64,
    /// Number of next commits to fail.
    pub(crate) conflicts: u32,
}

/// Connected client.
#[derive(Debug)]
struct Peer {
    domid: u16,
    outbox: Arc<Outbox>,
    watches: Vec<watches::Watch>,
    transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
}

type Reply = Result<Vec<u8>, Errno>;

impl Store {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            tree: Tree::default(),
            domains: Domains::default(),
            special: Special::default(),
            peers: BTreeMap::new(),
            last_peer: 0,
            conflicts: 0,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            nodes: self.tree.len(),
            connections: self.peers.len(),
            watches: self.peers.values().map(|peer| peer.watches.len()).sum(),
            transactions: self.peers.values().map(|peer| peer.transactions.len()).sum(),
        }
    }

    pub(crate) fn connect(&mut self, domid: u16, outbox: Arc<Outbox>) -> u64 {
        self.domains.mention(domid, self.tree.generation);
        self.last_peer += 1;
        let peer = Peer {
            domid,
            outbox,
            watches: Vec::new(),
            transactions: BTreeMap::new(),
            last_transaction: 0,
        };
        self.peers.insert(self.last_peer, peer);
        self.last_peer
    }

    /// Removes a client with its watches and transactions.
    pub(crate) fn leave(&mut self, peer: u64) {
        self.peers.remove(&peer);
    }

    pub(crate) fn disconnect(&mut self) {
        for peer in self.peers.values() {
            peer.outbox.close();
        }
    }

    /// Executes a request, and queues its reply and events.
    pub(crate) fn handle(&mut self, id: u64, frame: Frame<'_>) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let outbox = peer.outbox.clone();
        let mut changes = Vec::new();
        let reply = match Kind::of(frame.kind) {
            Some(kind) => self.answer(id, kind, frame, &mut changes),
            None => Err(Errno::NoSys),
        };
        let reply = reply.and_then(|payload| {
            if payload.len() > PAYLOAD_MAX {
                Err(Errno::TooBig)
            } else {
                Ok(payload)
            }
        });
        let done = reply.is_ok();
        // Events precede the reply, as xenstored sends them to unprivileged clients.
        self.notify(&changes);
        match reply {
            Ok(payload) => outbox.reply(frame.kind, frame.request, frame.transaction, &payload),
            Err(errno) => {
                let payload = format!("{errno}\0");
                outbox.reply(Kind::Error as u32, frame.request, frame.transaction, payload.as_bytes());
            }
        }
        if done && Kind::of(frame.kind) == Some(Kind::Watch) {
            self.first_event(id);
        }
    }

    fn answer(&mut self, id: u64, kind: Kind, frame: Frame<'_>, changes: &mut Vec<Change>) -> Reply {
        let caller = self.caller(id);
        let privileged = matches!(
            kind,
            Kind::Introduce | Kind::Release | Kind::Resume | Kind::SetTarget | Kind::IsDomainIntroduced
        );
        if privileged && !caller.is_privileged() {
            return Err(Errno::Access);
        }
        let within = match (kind, frame.transaction) {
            (Kind::Watch | Kind::Unwatch, _) | (_, 0) => None,
            (_, number) => Some(number),
        };
        if let Some(number) = within
            && !self
                .peers
                .get(&id)
                .is_some_and(|peer| peer.transactions.contains_key(&number))
        {
            return Err(Errno::NoEnt);
        }
        let payload = frame.payload;
        match kind {
            Kind::Watch => self.watch(id, payload),
            Kind::Unwatch => self.unwatch(id, payload),
            Kind::ResetWatches => self.reset(id),
            Kind::TransactionStart => self.begin(id, within),
            Kind::TransactionEnd => self.end(id, within, payload, changes),
            Kind::GetDomainPath => Ok(terminated(
                home(only_string(payload).and_then(decimal).ok_or(Errno::Invalid)?).as_str(),
            )),
            Kind::IsDomainIntroduced => {
                let domid = only_string(payload).and_then(decimal).ok_or(Errno::Invalid)?;
                Ok(terminated(if self.domains.is_introduced(domid) { "T" } else { "F" }))
            }
            Kind::Introduce => self.introduce(payload, changes),
            Kind::Release => self.release(payload, changes),
            Kind::Resume => self.introduced(only_string(payload)).map(|_| ok()),
            Kind::SetTarget => {
                let mut domids = strings(payload);
                let (domid, target) = (self.introduced(domids.next())?, self.introduced(domids.next())?);
                self.domains.set_target(domid, target);
                Ok(ok())
            }
            Kind::SetPerms if payload.starts_with(b"@") => self.set_special(caller, payload),
            Kind::WatchEvent | Kind::Error => Err(Errno::NoSys),
            Kind::Directory
            | Kind::DirectoryPart
            | Kind::Read
            | Kind::GetPerms
            | Kind::Write
            | Kind::Mkdir
            | Kind::Rm
            | Kind::SetPerms => {
                let path = match kind {
                    Kind::DirectoryPart | Kind::Write | Kind::SetPerms => first_string(payload).map(|parts| parts.0),
                    _ => only_string(payload),
                };
                let path = absolute(caller, path.ok_or(Errno::Invalid)?)?;
                let permissions = if kind == Kind::SetPerms {
                    self.permissions(caller, payload)?
                } else {
                    Vec::new()
                };
                let transaction = match within {
                    Some(number) => self
                        .peers
                        .get_mut(&id)
                        .and_then(|peer| peer.transactions.get_mut(&number)),
                    None => None,
                };
                let mut view = View {
                    tree: &mut self.tree,
                    domains: &mut self.domains,
                    quotas: &self.options.quotas,
                    caller,
                    transaction,
                    changes: Vec::new(),
                };
                let reply = node_request(&mut view, kind, &path, payload, permissions);
                changes.append(&mut view.changes);
                reply
            }
        }
    }

    fn caller(&self, id: u64) -> Caller {
        self.domains.caller(self.peers.get(&id).map_or(0, |peer| peer.domid))
    }
}

fn node_request(view: &mut View<'_>, kind: Kind, path: &Path, payload: &[u8], permissions: Vec<Permission>) -> Reply {
    match kind {
        Kind::Read => view.node(path, Need::Read).map(|node| node.value.clone()),
        Kind::Directory => view.node(path, Need::Read).map(|node| node.names()),
        Kind::DirectoryPart => {
            let offset = strings(payload).nth(1).and_then(decimal).ok_or(Errno::Invalid)?;
            let node = view.node(path, Need::Read)?;
            Ok(part(node.generation, &node.names(), offset))
        }
        Kind::GetPerms => view.node(path, Need::Read).map(|node| {
            node.permissions
                .iter()
                .flat_map(|permission| terminated(&permission.to_string()))
                .collect()
        }),
        Kind::Write => {
            let value = first_string(payload).map_or(&[][..], |parts| parts.1);
            view.write(path, value).map(|()| ok())
        }
        Kind::Mkdir => view.mkdir(path).map(|()| ok()),
        Kind::Rm => view.rm(path).map(|()| ok()),
        Kind::SetPerms => view.set_permissions(path, permissions).map(|()| ok()),
        _ => Err(Errno::NoSys),
    }
}

/// Encodes a reply to DIRECTORY_PART: whole names, and an empty one after the last.
fn part(generation: u64, list: &[u8], offset: usize) -> Vec<u8> {
    let mut reply = terminated(&generation.to_string());
    let space = PAYLOAD_MAX - reply.len() - 1;
    let rest = list.get(offset..).unwrap_or_default();
    let mut taken = 0;
    for name in rest.split_inclusive(|byte| *byte == 0) {
        if taken + name.len() > space {
            break;
        }
        taken += name.len();
    }
    reply.extend_from_slice(&rest[..taken]);
    if taken == rest.len() {
        reply.push(0);
    }
    reply
}

/// Parses the path of a request into an absolute or special one.
fn absolute(caller: Caller, text: &[u8]) -> Result<Path, Errno> {
    let path: Path = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(Errno::Invalid)?;
    let path = if path.is_absolute() || path.is_special() {
        path
    } else {
        home(caller.domid).join(path.as_str()).map_err(|_| Errno::Invalid)?
    };
    if path.as_str().len() > home_size(&path) + PATH_MAX {
        Err(Errno::Invalid)
    } else {
        Ok(path)
    }
}

/// Returns the length of `/local/domain/<domid>/` at the beginning of a path, or 0.
fn home_size(path: &Path) -> usize {
    let mut components = path.components();
    match (
        components.next(),
        components.next(),
        components.next().map(str::parse::<u16>),
    ) {
        (Some("local"), Some("domain"), Some(Ok(domid))) => home(domid).as_str().len() + 1,
        _ => 0,
    }
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), b"\0"].concat()
}

fn ok() -> Vec<u8> {
    terminated("OK")
}
