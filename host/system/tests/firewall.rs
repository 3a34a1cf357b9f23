//! Frames that links may send, sent from a guest's end of a vif over a bridge to another link.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;
mod frames;

use fixture::{Fixture, in_namespace, in_network, ip};
use frames::{Frame, Wire};
use xenplug_system::{
    Error,
    firewall::Sources,
    grant::{FirewallGrant, Operator},
    network::{IfName, Mac},
};

/// Hardware address of the guest.
const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 0, 0, 1];
const OTHER: [u8; 6] = [0x00, 0x16, 0x3e, 0, 0, 2];

fn grant() -> FirewallGrant {
    FirewallGrant::new(&Operator::of_configuration())
}

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn sources(ipv4: &[&str], ipv6: &[&str]) -> Sources {
    let prefixes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Sources {
        mac: Some(Mac(MAC)),
        ipv4: prefixes(ipv4),
        ipv6: prefixes(ipv6),
        dhcp: false,
    }
}

/// A bridge with the guest's vif, and with another link that receives the frames that pass.
struct Net {
    fixture: Fixture,
    guest: Wire,
    other: Wire,
}

impl Net {
    fn new() -> Self {
        // iptables must not filter bridged frames. The file is missing where br_netfilter is not built in.
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
        let _ = std::fs::write("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "0");
        // The host must not send frames of its own.
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
        let fixture = Fixture::linux();
        ip("link add xenbr0 type bridge mcast_snooping 0");
        for vif in ["vif1.0", "out"] {
            fixture.vif(vif);
            ip(&format!("link set {vif} master xenbr0 up"));
            ip(&format!("link set p{vif} up"));
        }
        ip("link set xenbr0 up");
        let net = Self {
            fixture,
            guest: Wire::open("pvif1.0"),
            other: Wire::open("pout"),
        };
        net.settle();
        net
    }

    /// Waits until the bridge forwards, because it notices the carrier of a new port late.
    fn settle(&self) {
        let probe = Frame::ipv4(MAC, "10.0.0.1", "10.0.0.97", 17).udp(9, 9);
        while self.other.is_ready() {
            self.other.receive();
        }
        let tries = (0..1000).take_while(|_| {
            self.guest.send(&probe);
            !self.other.is_ready()
        });
        assert!(tries.count() < 1000, "the bridge forwards nothing");
    }

    fn restrict(&self, sources: &Sources) {
        self.fixture
            .system
            .firewall
            .restrict(&grant(), &name("vif1.0"), sources)
            .unwrap();
    }

    fn lift(&self) {
        self.fixture.system.firewall.lift(&grant(), &name("vif1.0")).unwrap();
    }

    /// Tells whether a frame from the guest passes. The sentinel is sent after it, and passes by the rules: once it
    /// arrives, the frame will not.
    fn passes(&self, frame: &Frame, sentinel: &Frame) -> bool {
        self.guest.send(frame);
        self.guest.send(sentinel);
        let mut passed = false;
        loop {
            let received = self.other.receive();
            if received == sentinel.received() {
                return passed;
            }
            passed |= received == frame.received();
        }
    }
}

/// Runs the cases, with a frame that passes as the sentinel.
fn check(sources: &Sources, sentinel: &Frame, cases: &[(&str, Frame, bool)]) {
    in_namespace(|| {
        let net = Net::new();
        for (what, frame, _) in cases {
            assert!(net.passes(frame, sentinel), "without rules, {what} passes");
        }
        net.restrict(sources);
        for (what, frame, expected) in cases {
            assert_eq!(net.passes(frame, sentinel), *expected, "{what}");
        }
        net.lift();
        for (what, frame, _) in cases {
            assert!(net.passes(frame, sentinel), "with the rules lifted, {what} passes");
        }
    });
}

#[test]
fn ipv4_and_arp_pass_from_guest_addresses_only() {
    let udp = |from: &str| Frame::ipv4(MAC, from, "10.0.0.99", 17).udp(1000, 2000);
    let arp = |mac, from: &str| Frame::arp(MAC, 1, mac, from, "10.0.0.99");
    check(
        &sources(&["10.0.0.1", "10.1.0.0/16"], &[]),
        &Frame::ipv4(MAC, "10.0.0.1", "10.0.0.98", 17).udp(7, 7),
        &[
            ("its address", udp("10.0.0.1"), true),
            ("an address in its prefix", udp("10.1.255.3"), true),
            ("another's address", udp("10.0.0.2"), false),
            ("an address beside its prefix", udp("10.2.0.1"), false),
            ("no address", udp("0.0.0.0"), false),
            (
                "another's hardware address",
                Frame::ipv4(OTHER, "10.0.0.1", "10.0.0.99", 17).udp(1, 2),
                false,
            ),
            ("ARP for its address", arp(MAC, "10.0.0.1"), true),
            ("ARP for another's address", arp(MAC, "10.0.0.2"), false),
            ("ARP with another's hardware address", arp(OTHER, "10.0.0.1"), false),
            ("an ARP probe", arp(MAC, "0.0.0.0"), true),
            (
                "an ARP reply from nobody",
                Frame::arp(MAC, 2, MAC, "0.0.0.0", "10.0.0.99"),
                false,
            ),
            (
                "an answer as a DHCP server",
                Frame::ipv4(MAC, "10.0.0.1", "10.0.0.99", 17).udp(67, 68),
                false,
            ),
            (
                "a question to a DHCP server",
                Frame::ipv4(MAC, "0.0.0.0", "255.255.255.255", 17).udp(68, 67),
                false,
            ),
            ("IPv6", Frame::ipv6(MAC, "2001:db8::1", "ff02::1", 17).udp(1, 2), false),
            (
                "link-local IPv6",
                Frame::ipv6(MAC, "fe80::1", "ff02::1", 17).udp(1, 2),
                false,
            ),
            (
                "a VLAN's frame from its address",
                udp("10.0.0.1").in_vlan(0x8100, 5),
                false,
            ),
            (
                "a priority frame from another's address",
                udp("10.0.0.2").in_vlan(0x8100, 0),
                false,
            ),
            ("a provider VLAN's frame", udp("10.0.0.1").in_vlan(0x88a8, 5), false),
            ("a frame of another protocol", Frame::other(MAC, 0x88b5), false),
            ("a frame of 802.3", Frame::other(MAC, 64), false),
            ("an answer of RARP", Frame::other(MAC, 0x8035), false),
        ],
    );
}

#[test]
fn dhcp_request_passes_if_allowed() {
    let sources = Sources {
        dhcp: true,
        ..sources(&["10.0.0.1"], &["2001:db8::1"])
    };
    check(
        &sources,
        &Frame::ipv4(MAC, "10.0.0.1", "10.0.0.98", 17).udp(7, 7),
        &[
            (
                "a question to a DHCP server",
                Frame::ipv4(MAC, "0.0.0.0", "255.255.255.255", 17).udp(68, 67),
                true,
            ),
            (
                "another port from nowhere",
                Frame::ipv4(MAC, "0.0.0.0", "255.255.255.255", 17).udp(68, 69),
                false,
            ),
            (
                "TCP from nowhere",
                Frame::ipv4(MAC, "0.0.0.0", "255.255.255.255", 6).udp(68, 67),
                false,
            ),
            (
                "a question from another's address",
                Frame::ipv4(MAC, "10.0.0.2", "10.0.0.99", 17).udp(68, 67),
                false,
            ),
            (
                "an answer as a DHCP server",
                Frame::ipv4(MAC, "10.0.0.1", "10.0.0.99", 17).udp(67, 68),
                false,
            ),
            (
                "a question to a DHCPv6 server",
                Frame::ipv6(MAC, "fe80::1", "ff02::1:2", 17).udp(546, 547),
                true,
            ),
            (
                "an answer as a DHCPv6 server",
                Frame::ipv6(MAC, "fe80::1", "fe80::2", 17).udp(547, 546),
                false,
            ),
        ],
    );
}

#[test]
fn ipv6_and_neighbour_discovery_pass_from_guest_addresses() {
    let udp = |from: &str| Frame::ipv6(MAC, from, "2001:db8::99", 17).udp(1000, 2000);
    let icmp = |from: &str, kind: u8, target: &str| Frame::ipv6(MAC, from, "ff02::1", 58).icmpv6(kind, target);
    let (advert, solicit) = (136, 135);
    check(
        &sources(&[], &["2001:db8::1", "2001:db8:1::/64"]),
        &Frame::ipv6(MAC, "2001:db8::1", "2001:db8::98", 17).udp(7, 7),
        &[
            ("its address", udp("2001:db8::1"), true),
            ("an address in its prefix", udp("2001:db8:1::abcd"), true),
            ("another's address", udp("2001:db8::2"), false),
            ("an address beside its prefix", udp("2001:db8:1:1::1"), false),
            ("a link-local address", udp("fe80::216:3eff:fe00:1"), true),
            ("no address", udp("::"), false),
            (
                "another's hardware address",
                Frame::ipv6(OTHER, "2001:db8::1", "ff02::1", 17).udp(1, 2),
                false,
            ),
            ("an echo", icmp("2001:db8::1", 128, "::"), true),
            ("a search for duplicates", icmp("::", solicit, "2001:db8::1"), true),
            ("a report of groups from nobody", icmp("::", 143, "::"), true),
            ("a search for routers from nobody", icmp("::", 133, "::"), true),
            ("an echo from nobody", icmp("::", 128, "::"), false),
            ("a solicitation", icmp("2001:db8::1", solicit, "2001:db8::99"), true),
            (
                "an advertisement of its address",
                icmp("2001:db8::1", advert, "2001:db8::1"),
                true,
            ),
            (
                "one of its address from its link-local one",
                icmp("fe80::1", advert, "2001:db8:1::5"),
                true,
            ),
            ("one of a link-local address", icmp("fe80::1", advert, "fe80::1"), true),
            (
                "an advertisement of another's address",
                icmp("2001:db8::1", advert, "2001:db8::2"),
                false,
            ),
            (
                "one of another's address from a link-local one",
                icmp("fe80::1", advert, "2001:db8::2"),
                false,
            ),
            (
                "an advertisement from another's address",
                icmp("2001:db8::2", advert, "2001:db8::1"),
                false,
            ),
            ("an advertisement as a router", icmp("fe80::1", 134, "::"), false),
            ("a redirect", icmp("fe80::1", 137, "2001:db8::99"), false),
            (
                "an answer as a DHCPv6 server",
                Frame::ipv6(MAC, "fe80::1", "fe80::2", 17).udp(547, 546),
                false,
            ),
            (
                "a question to a DHCPv6 server",
                Frame::ipv6(MAC, "fe80::1", "ff02::1:2", 17).udp(546, 547),
                false,
            ),
            (
                "an advertisement as a router behind options",
                Frame::ipv6(MAC, "fe80::1", "ff02::1", 60)
                    .destination_options(58)
                    .icmpv6(134, "::"),
                false,
            ),
            (
                "an advertisement of another's address behind options",
                Frame::ipv6(MAC, "fe80::1", "ff02::1", 0)
                    .destination_options(58)
                    .icmpv6(advert, "2001:db8::2"),
                false,
            ),
            (
                "a part of an advertisement as a router",
                Frame::ipv6(MAC, "fe80::1", "ff02::1", 44)
                    .fragment(58, 0, true)
                    .icmpv6(134, "::"),
                false,
            ),
            (
                "a later part of ICMPv6",
                Frame::ipv6(MAC, "fe80::1", "ff02::1", 44)
                    .fragment(58, 8, false)
                    .icmpv6(128, "::"),
                false,
            ),
            (
                "a part of a datagram",
                Frame::ipv6(MAC, "2001:db8::1", "ff02::1", 44)
                    .fragment(17, 0, true)
                    .udp(1, 2),
                true,
            ),
            (
                "a part that ends within its headers",
                Frame::ipv6(MAC, "fe80::1", "ff02::1", 44).fragment(60, 0, true),
                false,
            ),
            ("ARP", Frame::arp(MAC, 1, MAC, "10.0.0.1", "10.0.0.99"), false),
            ("IPv4", Frame::ipv4(MAC, "10.0.0.1", "10.0.0.99", 17).udp(1, 2), false),
        ],
    );
}

#[test]
fn any_mac_passes_without_a_mac_filter() {
    let any = Sources {
        mac: None,
        ..sources(&["0.0.0.0/0"], &["::/0"])
    };
    check(
        &any,
        &Frame::ipv4(MAC, "10.0.0.1", "10.0.0.98", 17).udp(7, 7),
        &[
            (
                "another's hardware address",
                Frame::ipv4(OTHER, "10.0.0.7", "10.0.0.99", 17).udp(1, 2),
                true,
            ),
            (
                "ARP with it",
                Frame::arp(OTHER, 2, OTHER, "10.0.0.7", "10.0.0.99"),
                true,
            ),
            (
                "IPv6 with it",
                Frame::ipv6(OTHER, "2001:db8::7", "2001:db8::99", 17).udp(1, 2),
                true,
            ),
            (
                "an advertisement as a router",
                Frame::ipv6(OTHER, "fe80::1", "ff02::1", 58).icmpv6(134, "::"),
                false,
            ),
            ("another protocol", Frame::other(MAC, 0x88b5), false),
        ],
    );
}

#[test]
fn frames_to_the_host_and_its_bridges_are_filtered() {
    in_namespace(|| {
        let net = Net::new();
        let bpdu = Frame::other(MAC, 38).to([0x01, 0x80, 0xc2, 0, 0, 0]);
        let counted = || {
            let counters = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let line = counters
                .lines()
                .find(|line| line.contains("xenbr0:"))
                .unwrap()
                .to_owned();
            line.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap()
        };
        let sentinel = Frame::ipv4(MAC, "10.0.0.1", "10.0.0.98", 17).udp(7, 7);
        let spoofed = Frame::ipv4(MAC, "10.0.0.2", "10.0.0.98", 17).udp(7, 7);
        assert!(net.passes(&bpdu, &sentinel));
        net.restrict(&sources(&["10.0.0.1"], &[]));
        assert!(!net.passes(&bpdu, &sentinel));
        let before = counted();
        assert!(!net.passes(&spoofed, &sentinel));
        assert_eq!(counted() - before, 1, "this host saw the sentinel alone");
    });
}

#[test]
fn second_restriction_replaces_the_first_atomically() {
    in_namespace(|| {
        let net = Net::new();
        let (one, two) = (sources(&["10.0.0.1"], &[]), sources(&["10.0.0.2", "10.0.0.1"], &[]));
        let from = |address| Frame::ipv4(MAC, address, "10.0.0.99", 17).udp(1, 2);
        let sentinel = Frame::ipv4(MAC, "10.0.0.1", "10.0.0.98", 17).udp(7, 7);
        net.restrict(&one);
        assert!(!net.passes(&from("10.0.0.2"), &sentinel));
        net.restrict(&two);
        assert!(net.passes(&from("10.0.0.2"), &sentinel));
        net.restrict(&one);
        assert!(!net.passes(&from("10.0.0.2"), &sentinel));

        // Forbidden frames are dropped, and allowed ones pass, at every moment while the rules are replaced.
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                for _ in 0..2000 {
                    net.guest.send(&from("10.0.0.3"));
                    net.guest.send(&from("10.0.0.1"));
                }
                net.guest.send(&sentinel);
            });
            while !flood.is_finished() {
                net.restrict(&two);
                net.restrict(&one);
            }
        });
        let mut allowed = 0;
        loop {
            let received = net.other.receive();
            assert_ne!(received, from("10.0.0.3").received());
            allowed += usize::from(received == from("10.0.0.1").received());
            if received == sentinel.received() {
                break;
            }
        }
        assert_eq!(allowed, 2000, "what may pass always does");
    });
}

#[test]
fn rules_bind_a_recreated_vif_until_lifted() {
    in_namespace(|| {
        let net = Net::new();
        let sentinel = Frame::ipv4(MAC, "10.0.0.1", "10.0.0.98", 17).udp(7, 7);
        let spoofed = Frame::ipv4(MAC, "10.0.0.2", "10.0.0.99", 17).udp(1, 2);
        net.restrict(&sources(&["10.0.0.1"], &[]));
        net.fixture.remove_link("vif1.0");
        net.fixture.vif("vif1.0");
        ip("link set vif1.0 master xenbr0 up");
        ip("link set pvif1.0 up");
        let net = Net {
            guest: Wire::open("pvif1.0"),
            ..net
        };
        net.settle();
        net.restrict(&sources(&["10.0.0.1"], &[]));
        assert!(!net.passes(&spoofed, &sentinel));
        net.lift();
        assert!(net.passes(&spoofed, &sentinel));
    });
}

#[test]
fn rules_come_and_go_and_a_repeat_is_no_error() {
    in_network(|fixture| {
        let firewall = &fixture.system.firewall;
        for vif in ["vif1.0", "vif2.0", "vif3.0"] {
            fixture.vif(vif);
            firewall.lift(&grant(), &name(vif)).unwrap();
        }
        let sources = sources(&["10.0.0.1"], &["2001:db8::1"]);
        for vif in ["vif1.0", "vif2.0", "vif3.0"] {
            firewall.restrict(&grant(), &name(vif), &sources).unwrap();
            firewall.restrict(&grant(), &name(vif), &sources).unwrap();
        }
        assert_eq!(fixture.restricted(), ["vif1.0", "vif2.0", "vif3.0"], "{}", fixture.name);
        fixture.remove_link("vif1.0");
        for vif in ["vif1.0", "vif2.0"] {
            firewall.lift(&grant(), &name(vif)).unwrap();
            firewall.lift(&grant(), &name(vif)).unwrap();
        }
        assert_eq!(fixture.restricted(), ["vif3.0"], "{}", fixture.name);
        // A restarted daemon has no record of the rules, and lifts them all the same.
        fixture.another().firewall.lift(&grant(), &name("vif2.0")).unwrap();
        assert_eq!(fixture.restricted(), ["vif3.0"], "{}", fixture.name);
        fixture.another().firewall.lift(&grant(), &name("vif3.0")).unwrap();
        assert_eq!(fixture.restricted(), [""; 0], "{}", fixture.name);
        match firewall.restrict(&grant(), &name("vif1.0"), &sources) {
            Err(Error::NotFound(_)) => {}
            other => panic!("{}: {other:?}", fixture.name),
        }
        firewall.lift(&grant(), &name("vif1.0")).unwrap();
        assert_eq!(fixture.restricted(), [""; 0], "{}", fixture.name);
    });
}
