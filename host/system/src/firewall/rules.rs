//! Rules that restrict a link to its sources, as data.
//!
//! The rules test the type in the Ethernet header. A frame with a VLAN tag thus has none of the types that may pass,
//! whatever is in it. A frame that no rule lets pass is dropped.

use std::net::{IpAddr, Ipv6Addr};

use super::Sources;
use crate::{
    Error,
    network::{Mac, Prefix},
};

/// Maximum number of prefixes, more than a xenstore node can hold.
const MOST_PREFIXES: usize = 256;

/// A verdict on frames that pass all tests. The first such rule decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub tests: Vec<Test>,
    pub verdict: Verdict,
}

/// Verdict on a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Drop,
    /// Evaluates the rules for neighbour advertisements, and continues after this one if they `Return`.
    CheckNeighbour,
    Return,
}

/// A test of a frame. It fails for a frame that is too short or malformed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// Compares the bytes at an offset, masked with `mask`.
    Bytes {
        header: Header,
        offset: u32,
        mask: Option<Vec<u8>>,
        equal: bool,
        value: Vec<u8>,
    },
    /// Compares the transport protocol, which has to be known.
    Protocol { equal: bool, value: u8 },
    /// Matches a fragment of an IPv6 packet.
    Fragment,
}

/// Header that offsets are relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    Link,
    Network,
    Transport,
}

/// Rules of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Rules for all frames.
    pub frames: Vec<Rule>,
    /// Rules for neighbour advertisements (see [`Verdict::CheckNeighbour`]).
    pub neighbours: Vec<Rule>,
}

const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// Reserved protocol number (RFC 5237). Comparing with it tests whether the protocol is known.
const NO_PROTOCOL: u8 = 255;

// ICMPv6 (RFC 4861, RFC 3810).
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const MULTICAST_LISTENER_REPORT: u8 = 143;

/// Ports of clients and servers: DHCP, DHCPv6.
const DHCP: (u16, u16) = (68, 67);
const DHCPV6: (u16, u16) = (546, 547);

impl Rules {
    /// Makes the rules that restrict a link to its sources.
    pub(crate) fn of(sources: &Sources) -> Result<Self, Error> {
        let refused = |cause: &str| {
            Err(Error::Invalid {
                key: "ip",
                cause: cause.into(),
            })
        };
        if sources.ipv4.len() + sources.ipv6.len() > MOST_PREFIXES {
            return refused("there are more than 256 addresses");
        }
        if sources.ipv4.iter().any(|prefix| !prefix.address.is_ipv4())
            || sources.ipv6.iter().any(|prefix| !prefix.address.is_ipv6())
        {
            return refused("an IPv4 address is among the IPv6 ones, or the other way round");
        }
        let mut frames = Vec::new();
        if let Some(mac) = sources.mac {
            frames.push(Rule {
                tests: vec![differs(Header::Link, 6, &mac.0)],
                verdict: Verdict::Drop,
            });
        }
        frames.extend(arp(sources));
        frames.extend(ipv4(sources));
        frames.extend(ipv6(sources));
        Ok(Self {
            frames,
            neighbours: neighbours(sources),
        })
    }
}

/// Lets ARP pass whose sender is among the sources, and probes, which name no sender (RFC 5227).
fn arp(sources: &Sources) -> Vec<Rule> {
    let pass = |form: &[u8], sender: &[Test]| {
        let mut tests = vec![ether_type(0x0806), is(Header::Network, 0, form)];
        tests.extend(sources.mac.map(|Mac(mac)| is(Header::Network, 8, &mac)));
        tests.extend_from_slice(sender);
        Rule {
            tests,
            verdict: Verdict::Pass,
        }
    };
    // Ethernet, IPv4, the lengths of their addresses, and the operation of a probe: request.
    let any = [0, 1, 8, 0, 6, 4];
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    let mut rules: Vec<_> = sources
        .ipv4
        .iter()
        .map(|prefix| pass(&any, &within(Header::Network, 14, *prefix)))
        .collect();
    if sources.dhcp || !rules.is_empty() {
        rules.push(pass(&request, &[is(Header::Network, 14, &[0; 4])]));
    }
    rules
}

fn ipv4(sources: &Sources) -> Vec<Rule> {
    let rule = |tests: Vec<Test>, verdict| Rule {
        tests: [vec![ether_type(0x0800)], tests].concat(),
        verdict,
    };
    let (client, server) = DHCP;
    let mut rules = vec![rule(udp(server, client), Verdict::Drop)];
    rules.extend(
        sources
            .ipv4
            .iter()
            .map(|prefix| rule(within(Header::Network, 12, *prefix), Verdict::Pass)),
    );
    if sources.dhcp {
        let unspecified = vec![is(Header::Network, 12, &[0; 4])];
        rules.push(rule([unspecified, udp(client, server)].concat(), Verdict::Pass));
    }
    rules
}

/// Lets IPv6 pass from the sources and from link-local addresses, but not what only routers and DHCP servers send.
fn ipv6(sources: &Sources) -> Vec<Rule> {
    if sources.ipv6.is_empty() {
        return Vec::new();
    }
    let rule = |tests: Vec<Test>, verdict| Rule {
        tests: [vec![ether_type(0x86dd)], tests].concat(),
        verdict,
    };
    let icmp = |kind: u8| vec![protocol(ICMPV6), is(Header::Transport, 0, &[kind])];
    let (client, server) = DHCPV6;
    let mut rules = vec![
        // The ICMPv6 type of a fragment is unknown. Receivers ignore fragmented neighbour discovery anyway (RFC 6980).
        rule(vec![Test::Fragment, protocol(ICMPV6)], Verdict::Drop),
        rule(icmp(ROUTER_ADVERTISEMENT), Verdict::Drop),
        rule(icmp(REDIRECT), Verdict::Drop),
        rule(udp(server, client), Verdict::Drop),
    ];
    if !sources.dhcp {
        let to_server = is(Header::Transport, 2, &server.to_be_bytes());
        rules.push(rule(vec![protocol(UDP), to_server], Verdict::Drop));
    }
    rules.push(rule(icmp(NEIGHBOUR_ADVERTISEMENT), Verdict::CheckNeighbour));
    // A host without an address sends these: to detect duplicates, to find routers, and to join groups.
    for kind in [NEIGHBOUR_SOLICITATION, ROUTER_SOLICITATION, MULTICAST_LISTENER_REPORT] {
        let unspecified = vec![is(Header::Network, 8, &[0; 16])];
        rules.push(rule([unspecified, icmp(kind)].concat(), Verdict::Pass));
    }
    for prefix in allowed_ipv6(sources) {
        // A packet whose headers do not lead to a protocol could hide any of the above.
        let known = vec![Test::Protocol {
            equal: false,
            value: NO_PROTOCOL,
        }];
        rules.push(rule(
            [within(Header::Network, 8, prefix), known].concat(),
            Verdict::Pass,
        ));
    }
    rules
}

/// Drops neighbour advertisements for addresses that are not among the sources.
fn neighbours(sources: &Sources) -> Vec<Rule> {
    let returns = |prefix| Rule {
        tests: within(Header::Transport, 8, prefix),
        verdict: Verdict::Return,
    };
    allowed_ipv6(sources)
        .map(returns)
        .chain([Rule {
            tests: Vec::new(),
            verdict: Verdict::Drop,
        }])
        .collect()
}

fn allowed_ipv6(sources: &Sources) -> impl Iterator<Item = Prefix> {
    let link_local = Prefix {
        address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(),
        length: 10,
    };
    sources
        .ipv6
        .iter()
        .copied()
        .chain((!sources.ipv6.is_empty()).then_some(link_local))
}

fn ether_type(value: u16) -> Test {
    is(Header::Link, 12, &value.to_be_bytes())
}

fn protocol(value: u8) -> Test {
    Test::Protocol { equal: true, value }
}

fn udp(from: u16, to: u16) -> Vec<Test> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    vec![protocol(UDP), is(Header::Transport, 0, &ports)]
}

fn is(header: Header, offset: u32, value: &[u8]) -> Test {
    Test::Bytes {
        header,
        offset,
        mask: None,
        equal: true,
        value: value.into(),
    }
}

fn differs(header: Header, offset: u32, value: &[u8]) -> Test {
    Test::Bytes {
        header,
        offset,
        mask: None,
        equal: false,
        value: value.into(),
    }
}

/// Tests whether the address at an offset is within a prefix. A prefix of length 0 needs no test.
fn within(header: Header, offset: u32, prefix: Prefix) -> Vec<Test> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let value = octets(prefix.network().address);
    let ones = if prefix.address.is_ipv4() {
        IpAddr::from([0xff; 4])
    } else {
        IpAddr::from([0xff; 16])
    };
    let mask = octets(
        Prefix {
            address: ones,
            ..prefix
        }
        .network()
        .address,
    );
    let whole = mask.iter().all(|byte| *byte == 0xff);
    match prefix.length {
        0 => Vec::new(),
        _ => vec![Test::Bytes {
            header,
            offset,
            mask: (!whole).then_some(mask),
            equal: true,
            value,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(ipv4: &[&str], ipv6: &[&str]) -> Sources {
        let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().expect("a prefix")).collect();
        Sources {
            mac: None,
            ipv4: prefixes(ipv4),
            ipv6: prefixes(ipv6),
            dhcp: false,
        }
    }

    #[test]
    fn nothing_passes_without_sources() {
        let rules = Rules::of(&Sources::default()).expect("well-formed");
        assert!(rules.frames.iter().all(|rule| rule.verdict == Verdict::Drop));
    }

    #[test]
    fn family_without_sources_never_passes() {
        let passing = |sources: &Sources, kind: u16| {
            let rules = Rules::of(sources).expect("well-formed");
            let passing = rules.frames.into_iter().filter(|rule| rule.verdict == Verdict::Pass);
            passing.filter(|rule| rule.tests[0] == ether_type(kind)).count()
        };
        let (only_4, only_6) = (sources(&["10.0.0.1"], &[]), sources(&[], &["2001:db8::/64"]));
        assert_eq!(
            (
                passing(&only_4, 0x0806),
                passing(&only_4, 0x0800),
                passing(&only_4, 0x86dd)
            ),
            (2, 1, 0)
        );
        assert_eq!(
            (
                passing(&only_6, 0x0806),
                passing(&only_6, 0x0800),
                passing(&only_6, 0x86dd)
            ),
            (0, 0, 5)
        );
    }

    #[test]
    fn prefix_rule_masks_host_bits() {
        let test = |text: &str| within(Header::Network, 12, text.parse().expect("a prefix"));
        assert_eq!(test("0.0.0.0/0"), []);
        assert_eq!(test("10.0.0.1/32"), [is(Header::Network, 12, &[10, 0, 0, 1])]);
        let Test::Bytes { mask, value, .. } = &test("10.9.9.9/12")[0] else {
            panic!("not a test of bytes")
        };
        assert_eq!(
            (mask.as_deref(), value.as_slice()),
            (Some([255, 240, 0, 0].as_slice()), [10, 0, 0, 0].as_slice())
        );
    }

    #[test]
    fn mixed_or_excessive_sources_are_refused() {
        let mut mixed = sources(&["10.0.0.1"], &["2001:db8::1"]);
        std::mem::swap(&mut mixed.ipv4, &mut mixed.ipv6);
        assert!(matches!(Rules::of(&mixed), Err(Error::Invalid { key: "ip", .. })));
        let endless = sources(&["10.0.0.1"; 257], &[]);
        assert!(matches!(Rules::of(&endless), Err(Error::Invalid { key: "ip", .. })));
    }
}
