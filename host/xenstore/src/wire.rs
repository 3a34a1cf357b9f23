//! Frames: encoding and decoding of the header and payload of every message.

/// Bytes of `struct xsd_sockmsg` (xs_wire.h): type, req_id, tx_id, len, each a native-endian u32.
pub const HEADER: usize = 16;

/// `XENSTORE_PAYLOAD_MAX` (xs_wire.h).
pub const PAYLOAD_MAX: usize = 4096;

/// Capacity of a stream in one direction, for [`Endpoint::InProcess`](crate::Endpoint): more than a window full of the
/// longest messages.
#[cfg(feature = "server")]
pub const STREAM_CAPACITY: usize = 64 * (HEADER + PAYLOAD_MAX);

/// Longest payload on `/dev/xen/xenbus`, whose buffer of `XENSTORE_PAYLOAD_MAX` bytes holds the header too
/// (drivers/xen/xenbus/xenbus_dev_frontend.c, `struct xenbus_file_priv`).
pub(crate) const DEVICE_PAYLOAD_MAX: usize = PAYLOAD_MAX - HEADER;

/// Type of a message (xs_wire.h, `enum xsd_sockmsg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "docs/misc/xenstore.txt describes them by these names")]
pub enum Kind {
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    GetDomainPath = 10,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    WatchEvent = 15,
    Error = 16,
    IsDomainIntroduced = 17,
    Resume = 18,
    SetTarget = 19,
    ResetWatches = 21,
    DirectoryPart = 22,
}

impl Kind {
    const ALL: [Self; 21] = [
        Self::Directory,
        Self::Read,
        Self::GetPerms,
        Self::Watch,
        Self::Unwatch,
        Self::TransactionStart,
        Self::TransactionEnd,
        Self::Introduce,
        Self::Release,
        Self::GetDomainPath,
        Self::Write,
        Self::Mkdir,
        Self::Rm,
        Self::SetPerms,
        Self::WatchEvent,
        Self::Error,
        Self::IsDomainIntroduced,
        Self::Resume,
        Self::SetTarget,
        Self::ResetWatches,
        Self::DirectoryPart,
    ];

    /// Returns the type with this number.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }

    /// Returns the name in `docs/misc/xenstore.txt`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Directory => "DIRECTORY",
            Self::Read => "READ",
            Self::GetPerms => "GET_PERMS",
            Self::Watch => "WATCH",
            Self::Unwatch => "UNWATCH",
            Self::TransactionStart => "TRANSACTION_START",
            Self::TransactionEnd => "TRANSACTION_END",
            Self::Introduce => "INTRODUCE",
            Self::Release => "RELEASE",
            Self::GetDomainPath => "GET_DOMAIN_PATH",
            Self::Write => "WRITE",
            Self::Mkdir => "MKDIR",
            Self::Rm => "RM",
            Self::SetPerms => "SET_PERMS",
            Self::WatchEvent => "WATCH_EVENT",
            Self::Error => "ERROR",
            Self::IsDomainIntroduced => "IS_DOMAIN_INTRODUCED",
            Self::Resume => "RESUME",
            Self::SetTarget => "SET_TARGET",
            Self::ResetWatches => "RESET_WATCHES",
            Self::DirectoryPart => "DIRECTORY_PART",
        }
    }
}

/// Message, borrowed from the buffer it arrived in. `kind` is a number because a peer can send any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type: [`Kind::of`].
    pub kind: u32,
    /// Number that a reply repeats.
    pub request: u32,
    /// Transaction, or 0.
    pub transaction: u32,
    /// At most [`PAYLOAD_MAX`] bytes.
    pub payload: &'a [u8],
}

/// Error for a header that announces a longer payload than the protocol allows: the stream is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes, more than the {PAYLOAD_MAX} that the protocol allows")]
pub struct Oversized(pub u32);

/// Parses the first message of a buffer: the message and its length, or `None` if it is not complete yet.
pub fn first_frame(buffer: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Oversized> {
    let Some((header, rest)) = buffer.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let [kind, request, transaction, len] = words(header);
    if len as usize > PAYLOAD_MAX {
        return Err(Oversized(len));
    }
    Ok(rest.get(..len as usize).map(|payload| {
        let frame = Frame {
            kind,
            request,
            transaction,
            payload,
        };
        (frame, HEADER + payload.len())
    }))
}

/// Appends a message whose payload `fill` writes. The caller has checked its length.
pub fn append_frame(buffer: &mut Vec<u8>, kind: u32, request: u32, transaction: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = buffer.len();
    for word in [kind, request, transaction, 0] {
        buffer.extend_from_slice(&word.to_ne_bytes());
    }
    fill(buffer);
    let len = (buffer.len() - start - HEADER) as u32;
    buffer[start + HEADER - 4..start + HEADER].copy_from_slice(&len.to_ne_bytes());
}

/// Splits a payload into its strings, each ended by a NUL; bytes after the last NUL are ignored.
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    payload
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|part| part.strip_suffix(&[0]))
}

/// Returns the string of a payload with exactly one NUL, at its end.
pub fn only_string(payload: &[u8]) -> Option<&[u8]> {
    payload.strip_suffix(&[0]).filter(|text| !text.contains(&0))
}

/// Splits a payload after its first NUL: the string before it, and the rest.
pub fn first_string(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let nul = payload.iter().position(|byte| *byte == 0)?;
    Some((&payload[..nul], &payload[nul + 1..]))
}

/// Parses a text, such as a decimal number.
pub fn decimal<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn words(header: &[u8; HEADER]) -> [u32; 4] {
    let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    [word(0), word(4), word(8), word(12)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u32, request: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        append_frame(&mut buffer, kind, request, transaction, |to| {
            to.extend_from_slice(payload)
        });
        buffer
    }

    #[test]
    fn known_numbers_map_to_their_types() {
        for number in 0..70_000 {
            assert!(Kind::of(number).is_none_or(|kind| kind as u32 == number));
        }
        assert_eq!(Kind::of(20), None, "RESTRICT is gone");
        assert_eq!(
            Kind::ALL
                .into_iter()
                .filter(|kind| Kind::of(*kind as u32) == Some(*kind))
                .count(),
            21
        );
    }

    #[test]
    fn header_announcing_4097_bytes_is_refused() {
        let largest = frame(2, 1, 0, &[7; PAYLOAD_MAX]);
        assert_eq!(first_frame(&largest).unwrap().unwrap().0.payload.len(), PAYLOAD_MAX);
        for len in [4097, u32::MAX] {
            let mut header = frame(2, 1, 0, &[]);
            header[12..16].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(first_frame(&header), Err(Oversized(len)));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_as_complete_partial_or_oversized_frame(bytes: Vec<u8>) {
            match first_frame(&bytes) {
                Ok(Some((frame, used))) => {
                    prop_assert_eq!(used, HEADER + frame.payload.len());
                    prop_assert!(used <= bytes.len());
                }
                Ok(None) => prop_assert!(bytes.len() < HEADER + PAYLOAD_MAX),
                Err(Oversized(len)) => prop_assert!(len as usize > PAYLOAD_MAX),
            }
        }

        #[test]
        fn frame_round_trips(
            kind: u32, request: u32, transaction: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..PAYLOAD_MAX),
            tail: Vec<u8>,
        ) {
            let mut bytes = frame(kind, request, transaction, &payload);
            let used = bytes.len();
            for short in 0..used {
                prop_assert_eq!(first_frame(&bytes[..short]), Ok(None));
            }
            bytes.extend_from_slice(&tail);
            prop_assert_eq!(first_frame(&bytes), Ok(Some((Frame { kind, request, transaction, payload: &payload }, used))));
        }

        #[test]
        fn any_payload_splits_into_strings(payload: Vec<u8>) {
            let found: Vec<&[u8]> = strings(&payload).collect();
            prop_assert_eq!(found.len(), payload.iter().filter(|byte| **byte == 0).count());
            if let Some(only) = only_string(&payload) {
                prop_assert_eq!(found, vec![only]);
            }
            if let Some((first, rest)) = first_string(&payload) {
                prop_assert_eq!(first.len() + 1 + rest.len(), payload.len());
            }
        }
    }
}
