//! Requests to the store, and its replies.

use crate::{
    Errno, Error, Path, Permission,
    wire::{DEVICE_PAYLOAD_MAX, Kind, decimal, first_string, only_string, strings},
};

/// Request to the store, for [`Client::batch`](crate::Client::batch) and
/// [`Transaction::batch`](crate::Transaction::batch).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Lists the names of a node's children: [`Reply::Names`]. `E2BIG` if they do not fit into one message; then use
    /// [`Client::directory`](crate::Client::directory).
    Directory(Path),
    /// Reads the value of a node: [`Reply::Value`].
    Read(Path),
    /// Reads the permissions of a node: [`Reply::Permissions`].
    Permissions(Path),
    /// Sets the value of a node, and creates it and its missing ancestors: [`Reply::Done`].
    Write(Path, Vec<u8>),
    /// Creates a node and its missing ancestors: [`Reply::Done`].
    Mkdir(Path),
    /// Removes a node and all below it; its parent must exist: [`Reply::Done`].
    Rm(Path),
    /// Sets the permissions of a node, the first of which names the owner: [`Reply::Done`].
    SetPermissions(Path, Vec<Permission>),
    #[doc(hidden)]
    DomainPath(u16),
    #[doc(hidden)]
    IsIntroduced(u16),
    #[doc(hidden)]
    Introduce { domid: u16, mfn: u64, port: u32 },
    #[doc(hidden)]
    Release(u16),
    #[doc(hidden)]
    DirectoryPart(Path, usize),
    #[doc(hidden)]
    Watch(Path, u64),
    #[doc(hidden)]
    Unwatch(Path, u64),
    #[doc(hidden)]
    TransactionStart,
    #[doc(hidden)]
    TransactionEnd { commit: bool },
}

/// Reply of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The request has taken effect.
    Done,
    /// Value.
    Value(Vec<u8>),
    /// Names of children, in the store's order.
    Names(Vec<String>),
    /// Permissions of a node, the first of which names the owner.
    Permissions(Vec<Permission>),
    #[doc(hidden)]
    Part {
        generation: Vec<u8>,
        names: Vec<String>,
        /// Size of these names in the list, to add to the offset.
        bytes: usize,
        last: bool,
    },
    #[doc(hidden)]
    Transaction(u32),
    #[doc(hidden)]
    Flag(bool),
}

impl Reply {
    /// Returns the value of a reply to a request that has one.
    pub(crate) fn into_value(self) -> Vec<u8> {
        match self {
            Self::Value(value) => value,
            _ => Vec::new(),
        }
    }
}

impl Request {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Directory(_) => Kind::Directory,
            Self::Read(_) => Kind::Read,
            Self::Permissions(_) => Kind::GetPerms,
            Self::Write(..) => Kind::Write,
            Self::Mkdir(_) => Kind::Mkdir,
            Self::Rm(_) => Kind::Rm,
            Self::SetPermissions(..) => Kind::SetPerms,
            Self::DomainPath(_) => Kind::GetDomainPath,
            Self::IsIntroduced(_) => Kind::IsDomainIntroduced,
            Self::Introduce { .. } => Kind::Introduce,
            Self::Release(_) => Kind::Release,
            Self::DirectoryPart(..) => Kind::DirectoryPart,
            Self::Watch(..) => Kind::Watch,
            Self::Unwatch(..) => Kind::Unwatch,
            Self::TransactionStart => Kind::TransactionStart,
            Self::TransactionEnd { .. } => Kind::TransactionEnd,
        }
    }

    /// Appends the payload.
    pub(crate) fn fill(&self, to: &mut Vec<u8>) {
        let mut strings = |texts: &[&str]| {
            for text in texts {
                to.extend_from_slice(text.as_bytes());
                to.push(0);
            }
        };
        match self {
            Self::Directory(path) | Self::Read(path) | Self::Permissions(path) | Self::Mkdir(path) | Self::Rm(path) => {
                strings(&[path.as_str()])
            }
            Self::Write(path, value) => {
                strings(&[path.as_str()]);
                to.extend_from_slice(value);
            }
            Self::SetPermissions(path, permissions) => {
                strings(&[path.as_str()]);
                for permission in permissions {
                    to.extend_from_slice(permission.to_string().as_bytes());
                    to.push(0);
                }
            }
            Self::DomainPath(domid) | Self::IsIntroduced(domid) | Self::Release(domid) => {
                strings(&[&domid.to_string()]);
            }
            Self::Introduce { domid, mfn, port } => {
                strings(&[&domid.to_string(), &mfn.to_string(), &port.to_string()]);
            }
            Self::DirectoryPart(path, offset) => strings(&[path.as_str(), &offset.to_string()]),
            Self::Watch(path, token) | Self::Unwatch(path, token) => strings(&[path.as_str(), &token_text(*token)]),
            Self::TransactionStart => strings(&[""]),
            Self::TransactionEnd { commit } => strings(&[if *commit { "T" } else { "F" }]),
        }
    }

    /// Returns the size of the payload, or 0 where it is always short.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Write(path, value) => path.as_str().len() + 1 + value.len(),
            // A letter, five digits and a NUL at most.
            Self::SetPermissions(path, permissions) => path.as_str().len() + 1 + permissions.len() * 7,
            _ => 0,
        }
    }

    /// Fails with [`Error::TooLarge`] unless the request fits into a message.
    pub(crate) fn check_size(&self) -> Result<(), Error> {
        // The socket takes more than the device; the same limit for both keeps values portable.
        if self.size() <= DEVICE_PAYLOAD_MAX {
            return Ok(());
        }
        Err(Error::TooLarge {
            operation: self.kind().name(),
            subject: self.subject(),
            size: self.size(),
            limit: DEVICE_PAYLOAD_MAX,
        })
    }

    /// Returns the path or domain, for messages.
    pub(crate) fn subject(&self) -> String {
        match self {
            Self::Directory(path)
            | Self::Read(path)
            | Self::Permissions(path)
            | Self::Mkdir(path)
            | Self::Rm(path)
            | Self::Write(path, _)
            | Self::SetPermissions(path, _)
            | Self::DirectoryPart(path, _)
            | Self::Watch(path, _)
            | Self::Unwatch(path, _) => path.to_string(),
            Self::DomainPath(domid)
            | Self::IsIntroduced(domid)
            | Self::Release(domid)
            | Self::Introduce { domid, .. } => domid.to_string(),
            Self::TransactionStart => String::new(),
            Self::TransactionEnd { commit: true } => "commit".to_owned(),
            Self::TransactionEnd { commit: false } => "abort".to_owned(),
        }
    }

    /// Creates the error for a refusal by the store.
    pub(crate) fn refused(&self, errno: Errno) -> Error {
        Error::Store {
            operation: self.kind().name(),
            subject: self.subject(),
            errno,
        }
    }

    /// Parses the payload of a reply.
    pub(crate) fn reply(&self, payload: Vec<u8>) -> Result<Reply, Error> {
        self.parse(payload).ok_or_else(|| {
            Error::Protocol(format!(
                "a malformed reply to {} {}",
                self.kind().name(),
                self.subject()
            ))
        })
    }

    fn parse(&self, payload: Vec<u8>) -> Option<Reply> {
        Some(match self {
            Self::Directory(_) => Reply::Names(names(&payload)?),
            Self::Read(_) => Reply::Value(payload),
            Self::Permissions(_) => {
                Reply::Permissions(strings(&payload).map(Permission::from_bytes).collect::<Option<_>>()?)
            }
            Self::DomainPath(_) => Reply::Value(only_string(&payload)?.to_vec()),
            Self::IsIntroduced(_) => Reply::Flag(match only_string(&payload)? {
                b"T" => true,
                b"F" => false,
                _ => return None,
            }),
            Self::DirectoryPart(..) => {
                let (generation, list) = first_string(&payload)?;
                // An empty string after the names says that the list is complete.
                let last = list == [0] || list.ends_with(&[0, 0]);
                let list = if last { &list[..list.len() - 1] } else { list };
                Reply::Part {
                    generation: generation.to_vec(),
                    names: names(list)?,
                    bytes: list.len(),
                    last,
                }
            }
            Self::TransactionStart => Reply::Transaction(decimal(only_string(&payload)?).filter(|id| *id != 0)?),
            _ => Reply::Done,
        })
    }
}

/// Formats the token of a watch for requests and events.
pub(crate) fn token_text(token: u64) -> String {
    format!("x{token}")
}

/// Parses the token of an event.
pub(crate) fn token_number(text: &[u8]) -> Option<u64> {
    decimal(text.strip_prefix(b"x")?)
}

fn names(list: &[u8]) -> Option<Vec<String>> {
    strings(list)
        .map(|name| String::from_utf8(name.to_vec()).ok().filter(|name| !name.is_empty()))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn every_request() -> Vec<Request> {
        let path: Path = "/a".parse().unwrap();
        vec![
            Request::Directory(path.clone()),
            Request::Read(path.clone()),
            Request::Permissions(path.clone()),
            Request::Write(path.clone(), b"x".to_vec()),
            Request::Mkdir(path.clone()),
            Request::Rm(path.clone()),
            Request::SetPermissions(path.clone(), vec![Permission::none(0), Permission::both(65535)]),
            Request::DomainPath(7),
            Request::IsIntroduced(7),
            Request::Introduce {
                domid: 7,
                mfn: 1,
                port: 2,
            },
            Request::Release(7),
            Request::DirectoryPart(path.clone(), 3),
            Request::Watch(path.clone(), 9),
            Request::Unwatch(path, 9),
            Request::TransactionStart,
            Request::TransactionEnd { commit: true },
        ]
    }

    #[test]
    fn requests_are_encoded_as_in_the_protocol() {
        let texts: [&[u8]; 16] = [
            b"/a\0",
            b"/a\0",
            b"/a\0",
            b"/a\0x",
            b"/a\0",
            b"/a\0",
            b"/a\0n0\0b65535\0",
            b"7\0",
            b"7\0",
            b"7\x001\x002\0",
            b"7\0",
            b"/a\x003\0",
            b"/a\0x9\0",
            b"/a\0x9\0",
            b"\0",
            b"T\0",
        ];
        for (request, text) in every_request().into_iter().zip(texts) {
            let mut payload = Vec::new();
            request.fill(&mut payload);
            assert_eq!(payload, text, "{request:?}");
            assert!(request.size() == 0 || request.size() >= payload.len());
        }
    }

    proptest! {
        #[test]
        fn any_payload_is_a_reply_or_an_error(payload: Vec<u8>) {
            for request in every_request() {
                let _ = request.reply(payload.clone());
            }
        }

        #[test]
        fn token_round_trips(token: u64) {
            prop_assert_eq!(token_number(token_text(token).as_bytes()), Some(token));
        }
    }
}
