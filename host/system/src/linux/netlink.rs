//! Format of netlink messages, shared by rtnetlink and nf_tables (include/uapi/linux/netlink.h).
//!
//! The daemon sends half a dozen messages. Encoding them takes less code here than with the types of a library, and
//! messages of a newer kernel can still be read: unknown attributes are skipped.

mod socket;

pub(super) use self::socket::{Failure, Protocol, Sockets, subscribe_to_links};

/// Marks a request.
pub(super) const NLM_F_REQUEST: u16 = 0x1;
/// Requests an acknowledgement of success too.
pub(super) const NLM_F_ACK: u16 = 0x4;
/// Fails if the object exists.
pub(super) const NLM_F_EXCL: u16 = 0x200;
/// Makes the object if it does not exist.
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// Requests all objects.
pub(super) const NLM_F_DUMP: u16 = 0x300;
/// Marks a dump during which objects changed.
const NLM_F_DUMP_INTR: u16 = 0x10;
/// Marks an error with attributes.
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Buffer of messages to send together.
#[derive(Debug, Default)]
pub(super) struct Messages {
    buffer: Vec<u8>,
    /// Offset of the last message.
    last: usize,
    count: u32,
    /// Number of the message whose answer completes the exchange.
    answered: u32,
    /// Set if that answer is one message, without an acknowledgement after it.
    one_answer: bool,
}

impl Messages {
    /// Makes a single message.
    pub(super) fn one(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut messages = Self::default();
        messages.begin(kind, flags, header);
        messages
    }

    /// Makes a single message whose answer is one message or an error.
    pub(super) fn single_answer(kind: u16, header: &[u8]) -> Self {
        Self {
            one_answer: true,
            ..Self::one(kind, 0, header)
        }
    }

    /// Begins a message with the fixed header of its family. Messages are numbered from zero.
    pub(super) fn begin(&mut self, kind: u16, flags: u16, header: &[u8]) {
        self.last = self.buffer.len();
        self.buffer.extend([0; 4]);
        self.buffer.extend(kind.to_ne_bytes());
        self.buffer.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.buffer.extend(self.count.to_ne_bytes());
        self.buffer.extend([0; 4]);
        self.buffer.extend(header);
        self.count += 1;
        self.close(self.last, 4);
    }

    /// Requests an acknowledgement of the last message.
    pub(super) fn acknowledge_last(&mut self) {
        let flags = self.last + 6;
        let with = u16::from_ne_bytes([self.buffer[flags], self.buffer[flags + 1]]) | NLM_F_ACK;
        self.buffer[flags..flags + 2].copy_from_slice(&with.to_ne_bytes());
        self.answered = self.count - 1;
    }

    /// Adds an attribute to the last message.
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.nest_as(kind, |messages| messages.buffer.extend(value))
    }

    /// Adds an attribute with text and its NUL.
    pub(super) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.nest_as(kind, |messages| {
            messages.buffer.extend(value.as_bytes());
            messages.buffer.push(0);
        })
    }

    /// Adds an attribute that holds attributes.
    pub(super) fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        self.nest_as(kind | NLA_F_NESTED, inner)
    }

    fn nest_as(&mut self, kind: u16, inner: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.buffer.len();
        self.buffer.extend([0; 2]);
        self.buffer.extend(kind.to_ne_bytes());
        inner(self);
        self.close(start, 2);
        self.close(self.last, 4);
        self
    }

    /// Completes the message or attribute that began at `start`: writes its length in `width` bytes, and pads it.
    fn close(&mut self, start: usize, width: usize) {
        let length = u32::try_from(self.buffer.len() - start).unwrap_or(u32::MAX);
        debug_assert!(
            width == 4 || length <= u32::from(u16::MAX),
            "an attribute of {length} bytes"
        );
        let low = if cfg!(target_endian = "little") { 0 } else { 4 - width };
        self.buffer[start..start + width].copy_from_slice(&length.to_ne_bytes()[low..low + width]);
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message<'b> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    pub body: &'b [u8],
}

/// Iterates over the messages in a datagram. A truncated message ends the iteration.
pub(super) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let body = datagram.get(HEADER..length)?;
        let flags = u32_at(datagram, 4)?.to_ne_bytes();
        let message = Message {
            kind: u16::from_ne_bytes([flags[0], flags[1]]),
            flags: u16::from_ne_bytes([flags[2], flags[3]]),
            sequence: u32_at(datagram, 8)?,
            body,
        };
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Iterates over the attributes after a header of this length. A truncated attribute ends the iteration.
pub(super) fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(header..).unwrap_or_default();
    std::iter::from_fn(move || {
        let head = u32_at(rest, 0)?.to_ne_bytes();
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & NLA_TYPE_MASK;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Reads text up to its NUL.
pub(super) fn text(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.split(|byte| *byte == 0).next()?).ok()
}

/// Reads a `u32` at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_message_is_read_back() {
        let mut written = Messages::one(16, NLM_F_ACK, &[1, 2, 3, 4]);
        written.text(3, "vif1.0").nest(18, |messages| {
            messages.text(1, "bridge").attribute(2, &[]);
        });
        written.begin(17, 0, &[]);
        written.attribute(1, &[9]);
        let read: Vec<_> = messages(&written.buffer).collect();
        assert_eq!(
            read.iter()
                .map(|read| (read.kind, read.flags, read.sequence))
                .collect::<Vec<_>>(),
            [(16, 5, 0), (17, 1, 1)]
        );
        assert_eq!(read[0].body[..4], [1, 2, 3, 4]);
        let outer: Vec<_> = attributes(read[0].body, 4).collect();
        assert_eq!(outer[0], (3, b"vif1.0\0".as_slice()));
        assert_eq!(text(outer[0].1), Some("vif1.0"));
        assert_eq!(
            attributes(outer[1].1, 0).collect::<Vec<_>>(),
            [(1, b"bridge\0".as_slice()), (2, &[])]
        );
        assert_eq!(attributes(read[1].body, 0).collect::<Vec<_>>(), [(1, [9].as_slice())]);
    }

    #[test]
    fn truncated_message_is_ignored() {
        let mut written = Messages::one(16, 0, &[0; 16]);
        written.text(3, "vif1.0").attribute(4, &[0; 4]);
        let whole = written.buffer;
        for end in 0..whole.len() {
            assert_eq!(messages(&whole[..end]).count(), 0, "{end}");
        }
        for length in [0_u32, 3, 15, 0xffff_ffff] {
            let mut lying = whole.clone();
            lying[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(messages(&lying).count(), 0, "{length}");
        }
        for length in [0_u16, 3, 0xffff] {
            let mut lying = whole[HEADER..].to_vec();
            lying[16..18].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(attributes(&lying, 16).count(), 0, "{length}");
        }
    }
}
