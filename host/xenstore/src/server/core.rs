//! The store and its clients: what every request does.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Options, Stats,
    domains::{Caller, Domains, home},
    outbox::Outbox,
    transaction::Transaction,
    tree::Tree,
    view::{Change, INTRODUCE, Need, RELEASE, Special, View, change},
};
use crate::{
    Errno, Path, Permission,
    wire::{Frame, Kind, PAYLOAD_MAX, decimal, first_string, only_string, strings},
};

/// What a path may have below `/local/domain/<domid>/`, or altogether (tools/xenstored/core.c, `quota_max_path_len`).
const PATH_MAX: usize = 2048;

/// The store and its clients.
#[derive(Debug)]
pub(super) struct Core {
    options: Options,
    tree: Tree,
    domains: Domains,
    special: Special,
    peers: BTreeMap<u64, Peer>,
    last_peer: u64,
    /// Commits that are to fail.
    pub(super) conflicts: u32,
}

/// A client.
#[derive(Debug)]
struct Peer {
    domid: u16,
    outbox: Arc<Outbox>,
    watches: Vec<Watch>,
    transactions: BTreeMap<u32, Transaction>,
    last_transaction: u32,
}

#[derive(Debug)]
struct Watch {
    /// Absolute, or special.
    path: Path,
    token: Vec<u8>,
    relative: bool,
}

type Reply = Result<Vec<u8>, Errno>;

impl Core {
    pub(super) fn new(options: Options) -> Self {
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

    pub(super) fn stats(&self) -> Stats {
        Stats {
            nodes: self.tree.len(),
            connections: self.peers.len(),
            watches: self.peers.values().map(|peer| peer.watches.len()).sum(),
            transactions: self.peers.values().map(|peer| peer.transactions.len()).sum(),
        }
    }

    pub(super) fn connect(&mut self, domid: u16, outbox: Arc<Outbox>) -> u64 {
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

    /// A client is gone, and its watches and transactions with it.
    pub(super) fn leave(&mut self, peer: u64) {
        self.peers.remove(&peer);
    }

    pub(super) fn disconnect(&mut self) {
        for peer in self.peers.values() {
            peer.outbox.close();
        }
    }

    /// Does what a message asks for, and queues the reply and the events that come of it.
    pub(super) fn handle(&mut self, id: u64, frame: Frame<'_>) {
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
        // Events before the reply, as unprivileged clients of xenstored have them.
        self.tell(&changes);
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

    fn watch(&mut self, id: u64, payload: &[u8]) -> Reply {
        let caller = self.caller(id);
        let domid_watches: usize = self
            .peers
            .values()
            .filter(|peer| peer.domid == caller.domid)
            .map(|peer| peer.watches.len())
            .sum();
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        let (path, token) = watch_arguments(payload)?;
        let relative = !path.starts_with(b"/") && !path.starts_with(b"@");
        let path = absolute(caller, path)?;
        if peer
            .watches
            .iter()
            .any(|watch| watch.path == path && watch.token == token)
        {
            return Err(Errno::Exists);
        }
        // xenstored compares before it adds, so that one more than the quota can be set.
        if !caller.is_privileged() && domid_watches > self.options.quotas.watches {
            return Err(Errno::TooBig);
        }
        peer.watches.push(Watch {
            path,
            token: token.to_vec(),
            relative,
        });
        Ok(ok())
    }

    /// A watch that was just set fires once.
    fn first_event(&self, id: u64) {
        if let Some(peer) = self.peers.get(&id)
            && let Some(watch) = peer.watches.last()
        {
            watch.tell(peer, &watch.path);
        }
    }

    fn unwatch(&mut self, id: u64, payload: &[u8]) -> Reply {
        let caller = self.caller(id);
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        let (path, token) = watch_arguments(payload)?;
        let path = absolute(caller, path)?;
        let place = peer
            .watches
            .iter()
            .position(|watch| watch.path == path && watch.token == token);
        peer.watches.remove(place.ok_or(Errno::NoEnt)?);
        Ok(ok())
    }

    fn reset(&mut self, id: u64) -> Reply {
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        peer.watches.clear();
        peer.transactions.clear();
        Ok(ok())
    }

    fn begin(&mut self, id: u64, within: Option<u32>) -> Reply {
        let caller = self.caller(id);
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        if within.is_some() {
            return Err(Errno::Busy);
        }
        // As for watches, one more than the quota.
        if !caller.is_privileged() && peer.transactions.len() > self.options.quotas.transactions {
            return Err(Errno::NoSpace);
        }
        loop {
            peer.last_transaction = peer.last_transaction.wrapping_add(1).max(1);
            if !peer.transactions.contains_key(&peer.last_transaction) {
                break;
            }
        }
        peer.transactions.insert(peer.last_transaction, Transaction::default());
        Ok(terminated(&peer.last_transaction.to_string()))
    }

    fn end(&mut self, id: u64, within: Option<u32>, payload: &[u8], changes: &mut Vec<Change>) -> Reply {
        let commit = match only_string(payload) {
            Some(b"T") => true,
            Some(b"F") => false,
            _ => return Err(Errno::Invalid),
        };
        let caller = self.caller(id);
        let peer = self.peers.get_mut(&id).ok_or(Errno::Invalid)?;
        let transaction = within
            .and_then(|number| peer.transactions.remove(&number))
            .ok_or(Errno::NoEnt)?;
        if !commit {
            return Ok(ok());
        }
        if transaction.failed {
            return Err(Errno::NoMemory);
        }
        if self.conflicts > 0 {
            self.conflicts -= 1;
            return Err(Errno::Again);
        }
        let got = transaction.counts.get(&caller.domid).copied().unwrap_or_default();
        let nodes = self.domains.nodes(caller.domid).saturating_add_signed(got);
        if transaction.created && !caller.is_privileged() && nodes > self.options.quotas.nodes {
            return Err(Errno::NoSpace);
        }
        if transaction.conflicts(&self.tree) {
            return Err(Errno::Again);
        }
        for (domid, by) in &transaction.counts {
            self.domains.count(*domid, *by, self.tree.generation);
        }
        let changed = transaction.apply(&mut self.tree);
        changes.extend(changed.into_iter().map(|changed| {
            change(
                &self.tree,
                changed.path,
                changed.exact,
                changed.before.into_iter().collect(),
            )
        }));
        Ok(ok())
    }

    fn introduce(&mut self, payload: &[u8], changes: &mut Vec<Change>) -> Reply {
        let mut arguments = strings(payload);
        let domid = arguments.next().and_then(decimal::<u16>).ok_or(Errno::Invalid)?;
        let port = arguments.nth(1).and_then(decimal::<u32>).ok_or(Errno::Invalid)?;
        if port == 0 {
            return Err(Errno::Invalid);
        }
        if self.domains.introduce(domid, self.tree.generation) {
            changes.extend(self.special_change(INTRODUCE));
        }
        Ok(ok())
    }

    /// Forgets a domain: its connections are closed, and what it owns is removed.
    fn release(&mut self, payload: &[u8], changes: &mut Vec<Change>) -> Reply {
        let domid = self.introduced(only_string(payload))?;
        if domid == 0 {
            return Err(Errno::Invalid);
        }
        for peer in self.peers.values_mut().filter(|peer| peer.domid == domid) {
            peer.watches.clear();
            peer.transactions.clear();
            peer.outbox.close();
        }
        for path in self.tree.owned_by(domid) {
            let mut view = View {
                tree: &mut self.tree,
                domains: &mut self.domains,
                quotas: &self.options.quotas,
                caller: Caller { domid: 0, target: None },
                transaction: None,
                changes: Vec::new(),
            };
            if view.tree.node(&path).is_some() {
                view.remove(&path)?;
            }
            changes.append(&mut view.changes);
        }
        self.domains.forget(domid);
        changes.extend(self.special_change(RELEASE));
        Ok(ok())
    }

    fn introduced(&self, domid: Option<&[u8]>) -> Result<u16, Errno> {
        let domid = domid.and_then(decimal).ok_or(Errno::Invalid)?;
        if self.domains.is_introduced(domid) {
            Ok(domid)
        } else {
            Err(Errno::NoEnt)
        }
    }

    /// The permissions in a SET_PERMS.
    fn permissions(&mut self, caller: Caller, payload: &[u8]) -> Result<Vec<Permission>, Errno> {
        let permissions: Vec<_> = strings(payload)
            .skip(1)
            .map(|text| Permission::from_bytes(text).ok_or(Errno::Invalid))
            .collect::<Result<_, _>>()?;
        if permissions.is_empty() {
            return Err(Errno::Invalid);
        }
        if !caller.is_privileged() && permissions.len() > self.options.quotas.permissions {
            return Err(Errno::NoSpace);
        }
        for permission in &permissions {
            self.domains.mention(permission.domid, self.tree.generation);
        }
        Ok(permissions)
    }

    fn set_special(&mut self, caller: Caller, payload: &[u8]) -> Reply {
        let permissions = self.permissions(caller, payload)?;
        let name = first_string(payload)
            .and_then(|parts| std::str::from_utf8(parts.0).ok())
            .ok_or(Errno::Invalid)?;
        let (before, generation) = self.special.of(name).ok_or(Errno::Invalid)?;
        if !self.domains.rights(caller, before, *generation).own {
            return Err(Errno::Access);
        }
        self.special.set(name, (permissions, self.tree.generation));
        Ok(ok())
    }

    fn special_change(&self, name: &str) -> Option<Change> {
        let permissions = vec![self.special.of(name)?.clone()];
        Some(Change {
            path: name.parse().ok()?,
            exact: true,
            permissions,
        })
    }

    /// Tells every watch what concerns it, if its domain may know.
    fn tell(&self, changes: &[Change]) {
        for change in changes {
            for peer in self.peers.values() {
                let caller = self.domains.caller(peer.domid);
                let reads = |(permissions, generation): &(Vec<Permission>, u64)| {
                    self.domains.rights(caller, permissions, *generation).read
                };
                if !change.permissions.iter().any(reads) {
                    continue;
                }
                for watch in &peer.watches {
                    let concerned = match change.exact {
                        true => watch.path == change.path,
                        false => change.path.below(&watch.path).is_some(),
                    };
                    if concerned {
                        watch.tell(peer, &change.path);
                    }
                }
            }
        }
    }

    fn caller(&self, id: u64) -> Caller {
        self.domains.caller(self.peers.get(&id).map_or(0, |peer| peer.domid))
    }
}

impl Watch {
    fn tell(&self, peer: &Peer, path: &Path) {
        let path = match self.relative {
            true => path.below(&home(peer.domid)).unwrap_or(path.as_str()),
            false => path.as_str(),
        };
        peer.outbox.event(path, &self.token);
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

/// A part of a list of names, as DIRECTORY_PART answers it: whole names, and an empty one after the last.
fn part(generation: u64, list: &[u8], offset: usize) -> Vec<u8> {
    let mut reply = terminated(&generation.to_string());
    let room = PAYLOAD_MAX - reply.len() - 1;
    let rest = list.get(offset..).unwrap_or_default();
    let mut taken = 0;
    for name in rest.split_inclusive(|byte| *byte == 0) {
        if taken + name.len() > room {
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

/// Path and token, and nothing else.
fn watch_arguments(payload: &[u8]) -> Result<(&[u8], &[u8]), Errno> {
    let mut parts = strings(payload);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(path), Some(token), None) => Ok((path, token)),
        _ => Err(Errno::Invalid),
    }
}

/// An absolute path, or a special one, from what a caller sent.
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

/// Bytes of `/local/domain/<domid>/` at the beginning of a path, or 0.
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
