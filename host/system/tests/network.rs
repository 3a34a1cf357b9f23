//! Links and bridges, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::time::Duration;

use fixture::{Fixture, in_namespace, in_network, ip, network_grant};
use xenplug_system::{
    Error,
    network::{IfName, Link, LinkChanges, Mac, Prefix, Route},
};

const FE: Mac = Mac([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn link(fixture: &Fixture, text: &str) -> Link {
    fixture
        .system
        .network
        .link(&name(text))
        .unwrap()
        .unwrap_or_else(|| panic!("{}: no link {text}", fixture.name))
}

#[test]
fn link_is_found_by_name_and_by_index() {
    in_network(|fixture| {
        fixture.vif("vif1.0");
        fixture.bridge("xenbr0");
        let vif = link(fixture, "vif1.0");
        assert_eq!(vif.name, name("vif1.0"));
        assert_eq!(
            (vif.mtu, vif.up, vif.master, vif.bridge),
            (1500, false, None, false),
            "{}",
            fixture.name
        );
        assert!(link(fixture, "xenbr0").bridge);
        assert_eq!(fixture.system.network.link_by_index(vif.index).unwrap(), Some(vif));
        assert_eq!(fixture.system.network.link(&name("vif9.9")).unwrap(), None);
        assert_eq!(fixture.system.network.link_by_index(9999).unwrap(), None);
        assert_eq!(fixture.system.network.link_by_index(0).unwrap(), None);
    });
}

#[test]
fn granted_bridge_is_found_by_name_or_as_the_first() {
    in_network(|fixture| {
        let network = &fixture.system.network;
        let grant = network_grant(&["xenbr*"]);
        assert!(
            matches!(network.bridge(&grant, None), Err(Error::NotFound(_))),
            "{}",
            fixture.name
        );
        for bridge in ["other", "xenbr7", "xenbr1"] {
            fixture.bridge(bridge);
        }
        fixture.vif("xenbr-not");
        assert_eq!(network.bridge(&grant, None).unwrap().name, name("xenbr7"));
        assert_eq!(
            network.bridge(&grant, Some(&name("xenbr1"))).unwrap().name,
            name("xenbr1")
        );
        assert!(matches!(
            network.bridge(&grant, Some(&name("other"))),
            Err(Error::Denied(_))
        ));
        assert!(matches!(
            network.bridge(&grant, Some(&name("xenbr9"))),
            Err(Error::NotFound(_))
        ));
        match network.bridge(&grant, Some(&name("xenbr-not"))) {
            Err(Error::Invalid { key: "bridge", .. }) => {}
            other => panic!("{}: {other:?}", fixture.name),
        }
        assert!(matches!(
            network.bridge(&network_grant(&[]), None),
            Err(Error::NotFound(_))
        ));
    });
}

#[test]
fn vif_is_configured_in_one_step_and_restored() {
    in_network(|fixture| {
        let network = &fixture.system.network;
        let grant = network_grant(&["xenbr*"]);
        fixture.bridge("xenbr0");
        fixture.vif("vif1.0");
        let before = link(fixture, "vif1.0");
        let bridge = link(fixture, "xenbr0").index;
        let changes = LinkChanges {
            flush: true,
            mac: Some(FE),
            mtu: Some(1400),
            name: Some(name("guest-net")),
            master: Some(Some(bridge)),
            up: Some(true),
        };
        network.change(&grant, before.index, &changes).unwrap();
        let after = Link {
            name: name("guest-net"),
            mtu: 1400,
            mac: FE,
            up: true,
            master: Some(bridge),
            ..before.clone()
        };
        assert_eq!(
            network.link_by_index(before.index).unwrap(),
            Some(after.clone()),
            "{}",
            fixture.name
        );
        network.change(&grant, before.index, &changes).unwrap();
        assert_eq!(network.link_by_index(before.index).unwrap(), Some(after));

        let back = LinkChanges {
            flush: false,
            mac: Some(before.mac),
            mtu: Some(before.mtu),
            name: Some(before.name.clone()),
            master: Some(None),
            up: Some(false),
        };
        network.change(&grant, before.index, &back).unwrap();
        assert_eq!(network.link_by_index(before.index).unwrap(), Some(before.clone()));
        network.change(&grant, before.index, &LinkChanges::default()).unwrap();
    });
}

#[test]
fn renamed_link_stays_up() {
    in_network(|fixture| {
        let network = &fixture.system.network;
        let grant = network_grant(&[]);
        fixture.vif("vif1.0");
        let index = link(fixture, "vif1.0").index;
        network
            .change(
                &grant,
                index,
                &LinkChanges {
                    up: Some(true),
                    ..LinkChanges::default()
                },
            )
            .unwrap();
        let renamed = LinkChanges {
            name: Some(name("renamed")),
            mac: Some(FE),
            ..LinkChanges::default()
        };
        network.change(&grant, index, &renamed).unwrap();
        let after = link(fixture, "renamed");
        assert_eq!(
            (after.index, after.up, after.mac),
            (index, true, FE),
            "{}",
            fixture.name
        );
    });
}

#[test]
fn error_names_the_failed_change() {
    in_network(|fixture| {
        let network = &fixture.system.network;
        let grant = network_grant(&["xenbr*"]);
        fixture.vif("vif1.0");
        fixture.vif("vif2.0");
        fixture.bridge("secret");
        fixture.bridge("xenbr0");
        let index = link(fixture, "vif1.0").index;
        let change = |changes| network.change(&grant, index, &changes);
        match change(LinkChanges {
            mac: Some(FE),
            name: Some(name("vif2.0")),
            ..LinkChanges::default()
        }) {
            Err(Error::Busy(text)) => assert_eq!(text, "the name vif2.0 for vif1.0 is taken", "{}", fixture.name),
            other => panic!("{}: {other:?}", fixture.name),
        }
        match change(LinkChanges {
            mac: Some(FE),
            mtu: Some(1_000_000),
            ..LinkChanges::default()
        }) {
            Err(Error::Invalid { key: "mtu", cause }) => assert_eq!(cause, "1000000 is out of the range of vif1.0"),
            other => panic!("{}: {other:?}", fixture.name),
        }
        let multicast = Mac([1, 0, 0, 0, 0, 1]);
        match change(LinkChanges {
            mac: Some(multicast),
            mtu: Some(1400),
            ..LinkChanges::default()
        }) {
            Err(Error::Invalid { key: "mac", .. }) => {}
            other => panic!("{}: {other:?}", fixture.name),
        }
        let secret = link(fixture, "secret").index;
        match change(LinkChanges {
            master: Some(Some(secret)),
            ..LinkChanges::default()
        }) {
            Err(Error::Denied(text)) => assert_eq!(text, "the bridge secret is not granted"),
            other => panic!("{}: {other:?}", fixture.name),
        }
        let vif = link(fixture, "vif2.0").index;
        assert!(
            change(LinkChanges {
                master: Some(Some(vif)),
                ..LinkChanges::default()
            })
            .is_err()
        );
        assert!(matches!(
            change(LinkChanges {
                master: Some(Some(9999)),
                ..LinkChanges::default()
            }),
            Err(Error::NotFound(_))
        ));
        fixture.remove_link("vif1.0");
        match change(LinkChanges {
            up: Some(true),
            ..LinkChanges::default()
        }) {
            Err(Error::NotFound(_)) => {}
            other => panic!("{}: {other:?}", fixture.name),
        }
    });
}

#[test]
fn addresses_and_routes_come_and_go_and_a_repeat_is_no_error() {
    in_network(|fixture| {
        let network = &fixture.system.network;
        let grant = network_grant(&[]);
        fixture.vif("vif1.0");
        fixture.vif("vif2.0");
        let index = link(fixture, "vif1.0").index;
        let other = link(fixture, "vif2.0").index;
        for index in [index, other] {
            network
                .change(
                    &grant,
                    index,
                    &LinkChanges {
                        up: Some(true),
                        ..LinkChanges::default()
                    },
                )
                .unwrap();
        }
        for address in ["10.0.0.1/24", "2001:db8::1/64"].map(prefix) {
            network.add_address(&grant, index, address).unwrap();
            network.add_address(&grant, index, address).unwrap();
        }
        let routes = [
            Route {
                to: prefix("10.1.2.3"),
                source: Some("10.0.0.1".parse().unwrap()),
                metric: Some(200),
            },
            Route {
                to: prefix("10.1.0.0/16"),
                source: None,
                metric: None,
            },
            Route {
                to: prefix("2001:db8:1::/48"),
                source: None,
                metric: None,
            },
        ];
        for route in &routes {
            network.add_route(&grant, index, route).unwrap();
            network.add_route(&grant, index, route).unwrap();
        }
        assert!(
            matches!(network.add_route(&grant, other, &routes[0]), Err(Error::Busy(_))),
            "{}",
            fixture.name
        );
        assert_eq!(fixture.routes("vif1.0"), 3, "{}", fixture.name);
        assert_eq!(fixture.addresses("vif1.0"), ["10.0.0.1/24", "2001:db8::1/64"]);
        for route in &routes {
            network.remove_route(&grant, index, route).unwrap();
            network.remove_route(&grant, index, route).unwrap();
        }
        assert_eq!(fixture.routes("vif1.0"), 0, "{}", fixture.name);
        network.remove_address(&grant, index, prefix("10.0.0.1/24")).unwrap();
        network.remove_address(&grant, index, prefix("10.0.0.1/24")).unwrap();
        assert_eq!(fixture.addresses("vif1.0"), ["2001:db8::1/64"]);
        network
            .change(
                &grant,
                index,
                &LinkChanges {
                    flush: true,
                    ..LinkChanges::default()
                },
            )
            .unwrap();
        assert_eq!(fixture.addresses("vif1.0"), [""; 0]);
        fixture.remove_link("vif1.0");
        network.remove_address(&grant, index, prefix("10.0.0.1/24")).unwrap();
        network.remove_route(&grant, index, &routes[0]).unwrap();
        assert!(matches!(
            network.add_address(&grant, index, prefix("10.0.0.1/24")),
            Err(Error::NotFound(_))
        ));
    });
}

#[test]
fn new_and_renamed_links_are_reported() {
    in_network(|fixture| {
        let network = &fixture.system.network;
        fixture.vif("old");
        let appearances = network.appearances().unwrap();
        let next = || appearances.recv_timeout(Duration::from_secs(5)).unwrap();
        fixture.vif("vif1.0");
        let mut reported = vec![next()];
        // The other end of the veth pair is reported as well.
        if reported[0] != Some(name("vif1.0")) {
            reported.push(next());
        }
        assert!(
            reported.contains(&Some(name("vif1.0"))),
            "{}: {reported:?}",
            fixture.name
        );
        while appearances.recv_timeout(Duration::from_millis(100)).is_ok() {}
        let index = link(fixture, "vif1.0").index;
        let changes = LinkChanges {
            name: Some(name("renamed")),
            up: Some(true),
            ..LinkChanges::default()
        };
        network.change(&network_grant(&[]), index, &changes).unwrap();
        assert_eq!(next(), Some(name("renamed")));
        fixture.remove_link("renamed");
        assert!(appearances.recv_timeout(Duration::from_millis(100)).is_err());
        fixture.vif("renamed");
        assert!(next().is_some());
    });
}

#[test]
fn bridge_port_is_reported_once() {
    in_namespace(|| {
        let fixture = Fixture::linux();
        let appearances = fixture.system.network.appearances().unwrap();
        fixture.bridge("xenbr0");
        fixture.vif("vif1.0");
        ip("link set vif1.0 master xenbr0");
        ip("link set vif1.0 nomaster");
        ip("link set vif1.0 mtu 1400");
        std::thread::sleep(Duration::from_millis(100));
        let mut reported: Vec<_> = appearances.try_iter().map(|name| name.unwrap().to_string()).collect();
        reported.sort();
        assert_eq!(reported, ["pvif1.0", "vif1.0", "xenbr0"]);
    });
}

#[test]
fn thousand_links_at_once_lose_no_name_silently() {
    in_namespace(|| {
        let fixture = Fixture::linux();
        let appearances = fixture.system.network.appearances().unwrap();
        let script: String = (0..500)
            .map(|n| format!("link add vif{n}.0 type veth peer name p{n}\n"))
            .collect();
        let batch = fixture.path("batch");
        std::fs::write(&batch, script).unwrap();
        ip(&format!("-batch {batch}"));
        std::thread::sleep(Duration::from_millis(300));
        let reported: Vec<_> = appearances.try_iter().collect();
        assert!(
            reported.contains(&None) || reported.len() == 1000,
            "{} names",
            reported.len()
        );
    });
}
