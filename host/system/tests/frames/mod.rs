//! Ethernet frames, and packet sockets on links to send and receive them.
#![allow(unsafe_code, reason = "packet sockets have no safe form")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    ffi::CString,
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::FromRawFd,
};

/// An Ethernet frame. Its destination is a multicast address, so that a bridge floods it.
#[derive(Clone, Debug)]
pub(crate) struct Frame(Vec<u8>);

impl Frame {
    fn new(from: [u8; 6], kind: u16) -> Self {
        let mut frame = vec![0xff; 6];
        frame.extend(from);
        frame.extend(kind.to_be_bytes());
        Self(frame)
    }

    /// Returns the frame as it is on the wire.
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the frame as a packet socket receives it: the kernel has removed the VLAN tag.
    pub(crate) fn received(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        if matches!(self.0[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
            bytes.drain(12..16);
        }
        bytes
    }

    /// Makes a frame of another type than IP.
    pub(crate) fn other(from: [u8; 6], kind: u16) -> Self {
        let mut frame = Self::new(from, kind);
        frame.0.extend([0x42; 64]);
        frame
    }

    pub(crate) fn arp(from: [u8; 6], operation: u8, sender: [u8; 6], address: &str, target: &str) -> Self {
        let mut frame = Self::new(from, 0x0806);
        frame.0.extend([0, 1, 8, 0, 6, 4, 0, operation]);
        frame.0.extend(sender);
        frame.0.extend(address.parse::<Ipv4Addr>().unwrap().octets());
        frame.0.extend([0; 6]);
        frame.0.extend(target.parse::<Ipv4Addr>().unwrap().octets());
        frame
    }

    /// Makes an IPv4 packet without content.
    pub(crate) fn ipv4(from: [u8; 6], source: &str, to: &str, protocol: u8) -> Self {
        let mut frame = Self::new(from, 0x0800);
        frame.0.extend([0x45, 0, 0, 20 + 8, 0, 1, 0, 0, 64, protocol, 0, 0]);
        for address in [source, to] {
            frame.0.extend(address.parse::<Ipv4Addr>().unwrap().octets());
        }
        frame
    }

    /// Makes an IPv6 packet without content.
    pub(crate) fn ipv6(from: [u8; 6], source: &str, to: &str, next: u8) -> Self {
        let mut frame = Self::new(from, 0x86dd);
        frame.0.extend([0x60, 0, 0, 0, 0, 0, next, 255]);
        for address in [source, to] {
            frame.0.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        }
        frame
    }

    pub(crate) fn destination_options(self, next: u8) -> Self {
        self.with(&[next, 0, 1, 4, 0, 0, 0, 0])
    }

    /// Adds the header of a fragment: its offset in units of eight bytes, and whether more fragments follow.
    pub(crate) fn fragment(self, next: u8, offset: u16, more: bool) -> Self {
        let [high, low] = (offset << 3 | u16::from(more)).to_be_bytes();
        self.with(&[next, 0, high, low, 0, 0, 0, 1])
    }

    pub(crate) fn udp(self, from: u16, to: u16) -> Self {
        let [a, b] = from.to_be_bytes();
        let [c, d] = to.to_be_bytes();
        self.with(&[a, b, c, d, 0, 8, 0, 0])
    }

    /// Adds an ICMPv6 message with the target at the offset of solicitations, advertisements and redirects.
    pub(crate) fn icmpv6(self, kind: u8, target: &str) -> Self {
        let IpAddr::V6(target) = target.parse().unwrap() else {
            panic!("{target} is not of IPv6")
        };
        self.with(&[kind, 0, 0, 0, 0, 0, 0, 0]).with(&target.octets())
    }

    /// Adds a VLAN tag.
    pub(crate) fn in_vlan(mut self, kind: u16, number: u16) -> Self {
        let tag = [kind.to_be_bytes(), number.to_be_bytes()].concat();
        self.0.splice(12..12, tag);
        self
    }

    /// Sets the destination address.
    pub(crate) fn to(mut self, address: [u8; 6]) -> Self {
        self.0.splice(..6, address);
        self
    }

    /// Appends content, and updates the payload length of an IPv6 packet.
    fn with(mut self, content: &[u8]) -> Self {
        self.0.extend(content);
        if self.0[12..14] == [0x86, 0xdd] {
            let length = u16::try_from(self.0.len() - 14 - 40).unwrap();
            self.0[18..20].copy_from_slice(&length.to_be_bytes());
        } else {
            let length = u16::try_from(self.0.len() - 14).unwrap();
            self.0[16..18].copy_from_slice(&length.to_be_bytes());
            self.0[24..26].copy_from_slice(&[0, 0]);
            let sum: u32 = self.0[14..34]
                .chunks(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
                .sum();
            let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
            self.0[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        self
    }
}

/// A packet socket on a link.
pub(crate) struct Wire(File);

impl Wire {
    /// Opens a socket on a link in the network namespace of the calling thread.
    pub(crate) fn open(link: &str) -> Self {
        let all = 3_u16.to_be(); // ETH_P_ALL
        let name = CString::new(link).unwrap();
        // SAFETY: each call gets arguments of the right types, and its result is checked. The file owns the descriptor.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(all));
            assert!(fd >= 0, "open a packet socket");
            let file = File::from_raw_fd(fd);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            address.sll_protocol = all;
            address.sll_ifindex = i32::try_from(libc::if_nametoindex(name.as_ptr())).unwrap();
            let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
            assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0, "bind to {link}");
            let buffer: libc::c_int = 16 << 20;
            let length = libc::socklen_t::try_from(size_of_val(&buffer)).unwrap();
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVBUFFORCE,
                (&raw const buffer).cast(),
                length,
            );
            let timeout = libc::timeval { tv_sec: 5, tv_usec: 0 };
            let length = libc::socklen_t::try_from(size_of_val(&timeout)).unwrap();
            libc::setsockopt(
                fd,
                libc::SOL_SOCKET,
                libc::SO_RCVTIMEO,
                (&raw const timeout).cast(),
                length,
            );
            Self(file)
        }
    }

    pub(crate) fn send(&self, frame: &Frame) {
        (&self.0).write_all(frame.bytes()).unwrap();
    }

    /// Tells whether a frame arrives within 10 ms.
    pub(crate) fn is_ready(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)).unwrap() > 0
    }

    /// Receives the next frame.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut bytes = vec![0; 2048];
        let length = (&self.0).read(&mut bytes).expect("a frame within five seconds");
        bytes.truncate(length);
        bytes
    }
}
