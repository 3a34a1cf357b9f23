//! Sets a vif up as the port of a bridge, in two rtnetlink messages (include/uapi/linux/{rtnetlink,if_link}.h).

use anyhow::{Context, Result, ensure};
use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto, socket_with},
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFF_UP: u32 = 1;
/// Size of `struct nlmsghdr` and `struct ifinfomsg` together.
const HEADERS: usize = 32;

/// Socket to rtnetlink.
pub(super) struct Links {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Links {
    pub(super) fn open() -> Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self {
            socket,
            buffer: vec![0; 8192],
        })
    }

    /// Returns the interface index and MTU of a link.
    pub(super) fn bridge(&mut self, name: &str) -> Result<(u32, u32)> {
        let reply = self
            .ask(RTM_GETLINK, 0, 0, &[(IFLA_IFNAME, &named(name))])
            .with_context(|| name.to_owned())?;
        ensure!(reply.len() >= HEADERS, "a short reply from rtnetlink");
        let index = word(reply, 20);
        let mut rest = &reply[HEADERS..];
        while rest.len() >= 4 {
            let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
            if u16::from_ne_bytes([rest[2], rest[3]]) == IFLA_MTU && rest.len() >= 8 {
                return Ok((index, word(rest, 4)));
            }
            rest = rest.get(length.next_multiple_of(4).max(4)..).unwrap_or_default();
        }
        anyhow::bail!("rtnetlink gave no MTU of {name}")
    }

    /// Sets the MAC address of a bridge port, the MTU and the bridge of a link, and sets the link up. Returns false if
    /// there is no such link.
    pub(super) fn enslave(&mut self, name: &str, bridge: u32, mtu: u32) -> Result<bool> {
        let attributes: [(u16, &[u8]); 4] = [
            (IFLA_IFNAME, &named(name)),
            (IFLA_ADDRESS, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (IFLA_MTU, &mtu.to_ne_bytes()),
            (IFLA_MASTER, &bridge.to_ne_bytes()),
        ];
        match self.ask(RTM_NEWLINK, NLM_F_ACK, IFF_UP, &attributes) {
            Err(error) if error.downcast_ref() == Some(&Errno::NODEV) => Ok(false),
            done => done.map(|_| true).with_context(|| name.to_owned()),
        }
    }

    /// Sends a message about a link that is named by an attribute, and receives the answer.
    fn ask(&mut self, kind: u16, flags: u16, up: u32, attributes: &[(u16, &[u8])]) -> Result<&[u8]> {
        let mut message = vec![0; HEADERS];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        message[24..28].copy_from_slice(&up.to_ne_bytes());
        message[28..32].copy_from_slice(&up.to_ne_bytes());
        for (attribute, value) in attributes {
            message.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
            message.extend_from_slice(&attribute.to_ne_bytes());
            message.extend_from_slice(value);
            message.resize(message.len().next_multiple_of(4), 0);
        }
        let length = message.len() as u32;
        message[0..4].copy_from_slice(&length.to_ne_bytes());
        sendto(
            &self.socket,
            &message,
            SendFlags::empty(),
            &netlink::SocketAddrNetlink::new(0, 0),
        )?;
        let (length, _) = recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::empty())?;
        let reply = &self.buffer[..length];
        ensure!(length >= 20, "a short reply from rtnetlink");
        if u16::from_ne_bytes([reply[4], reply[5]]) == NLMSG_ERROR && word(reply, 16) != 0 {
            return Err(Errno::from_raw_os_error(-word(reply, 16).cast_signed()).into());
        }
        Ok(reply)
    }
}

fn named(name: &str) -> Vec<u8> {
    [name.as_bytes(), b"\0"].concat()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
