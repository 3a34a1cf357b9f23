//! Links and bridges, each test in a network namespace of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stage;

use std::time::Duration;

use stage::{Stage, in_namespace, in_network, ip, network_grant};
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

fn link(stage: &Stage, text: &str) -> Link {
    stage
        .system
        .network
        .link(&name(text))
        .unwrap()
        .unwrap_or_else(|| panic!("{}: no link {text}", stage.name))
}

#[test]
fn a_link_is_found_by_name_and_by_number() {
    in_network(|stage| {
        stage.card("vif1.0");
        stage.bridge("xenbr0");
        let vif = link(stage, "vif1.0");
        assert_eq!(vif.name, name("vif1.0"));
        assert_eq!(
            (vif.mtu, vif.up, vif.master, vif.bridge),
            (1500, false, None, false),
            "{}",
            stage.name
        );
        assert!(link(stage, "xenbr0").bridge);
        assert_eq!(stage.system.network.link_by_index(vif.index).unwrap(), Some(vif));
        assert_eq!(stage.system.network.link(&name("vif9.9")).unwrap(), None);
        assert_eq!(stage.system.network.link_by_index(9999).unwrap(), None);
        assert_eq!(stage.system.network.link_by_index(0).unwrap(), None);
    });
}

#[test]
fn a_granted_bridge_is_found_by_name_or_as_the_first() {
    in_network(|stage| {
        let network = &stage.system.network;
        let grant = network_grant(&["xenbr*"]);
        assert!(
            matches!(network.bridge(&grant, None), Err(Error::NotFound(_))),
            "{}",
            stage.name
        );
        for bridge in ["other", "xenbr7", "xenbr1"] {
            stage.bridge(bridge);
        }
        stage.card("xenbr-not");
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
            other => panic!("{}: {other:?}", stage.name),
        }
        assert!(matches!(
            network.bridge(&network_grant(&[]), None),
            Err(Error::NotFound(_))
        ));
    });
}

#[test]
fn a_card_is_configured_in_one_step_and_put_back() {
    in_network(|stage| {
        let network = &stage.system.network;
        let grant = network_grant(&["xenbr*"]);
        stage.bridge("xenbr0");
        stage.card("vif1.0");
        let before = link(stage, "vif1.0");
        let bridge = link(stage, "xenbr0").index;
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
            stage.name
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
fn a_link_that_is_up_keeps_being_up_when_it_is_renamed() {
    in_network(|stage| {
        let network = &stage.system.network;
        let grant = network_grant(&[]);
        stage.card("vif1.0");
        let index = link(stage, "vif1.0").index;
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
        let after = link(stage, "renamed");
        assert_eq!((after.index, after.up, after.mac), (index, true, FE), "{}", stage.name);
    });
}

#[test]
fn an_error_names_the_change_that_failed() {
    in_network(|stage| {
        let network = &stage.system.network;
        let grant = network_grant(&["xenbr*"]);
        stage.card("vif1.0");
        stage.card("vif2.0");
        stage.bridge("secret");
        stage.bridge("xenbr0");
        let index = link(stage, "vif1.0").index;
        let change = |changes| network.change(&grant, index, &changes);
        match change(LinkChanges {
            mac: Some(FE),
            name: Some(name("vif2.0")),
            ..LinkChanges::default()
        }) {
            Err(Error::Busy(text)) => assert_eq!(text, "the name vif2.0 for vif1.0 is taken", "{}", stage.name),
            other => panic!("{}: {other:?}", stage.name),
        }
        match change(LinkChanges {
            mac: Some(FE),
            mtu: Some(1_000_000),
            ..LinkChanges::default()
        }) {
            Err(Error::Invalid { key: "mtu", cause }) => assert_eq!(cause, "1000000 is out of the range of vif1.0"),
            other => panic!("{}: {other:?}", stage.name),
        }
        let multicast = Mac([1, 0, 0, 0, 0, 1]);
        match change(LinkChanges {
            mac: Some(multicast),
            mtu: Some(1400),
            ..LinkChanges::default()
        }) {
            Err(Error::Invalid { key: "mac", .. }) => {}
            other => panic!("{}: {other:?}", stage.name),
        }
        let secret = link(stage, "secret").index;
        match change(LinkChanges {
            master: Some(Some(secret)),
            ..LinkChanges::default()
        }) {
            Err(Error::Denied(text)) => assert_eq!(text, "the bridge secret is not granted"),
            other => panic!("{}: {other:?}", stage.name),
        }
        let card = link(stage, "vif2.0").index;
        assert!(
            change(LinkChanges {
                master: Some(Some(card)),
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
        stage.unplug("vif1.0");
        match change(LinkChanges {
            up: Some(true),
            ..LinkChanges::default()
        }) {
            Err(Error::NotFound(_)) => {}
            other => panic!("{}: {other:?}", stage.name),
        }
    });
}

#[test]
fn addresses_and_routes_come_and_go_and_a_repeat_is_no_error() {
    in_network(|stage| {
        let network = &stage.system.network;
        let grant = network_grant(&[]);
        stage.card("vif1.0");
        stage.card("vif2.0");
        let index = link(stage, "vif1.0").index;
        let other = link(stage, "vif2.0").index;
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
            stage.name
        );
        assert_eq!(stage.routes("vif1.0"), 3, "{}", stage.name);
        assert_eq!(stage.addresses("vif1.0"), ["10.0.0.1/24", "2001:db8::1/64"]);
        for route in &routes {
            network.remove_route(&grant, index, route).unwrap();
            network.remove_route(&grant, index, route).unwrap();
        }
        assert_eq!(stage.routes("vif1.0"), 0, "{}", stage.name);
        network.remove_address(&grant, index, prefix("10.0.0.1/24")).unwrap();
        network.remove_address(&grant, index, prefix("10.0.0.1/24")).unwrap();
        assert_eq!(stage.addresses("vif1.0"), ["2001:db8::1/64"]);
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
        assert_eq!(stage.addresses("vif1.0"), [""; 0]);
        stage.unplug("vif1.0");
        network.remove_address(&grant, index, prefix("10.0.0.1/24")).unwrap();
        network.remove_route(&grant, index, &routes[0]).unwrap();
        assert!(matches!(
            network.add_address(&grant, index, prefix("10.0.0.1/24")),
            Err(Error::NotFound(_))
        ));
    });
}

#[test]
fn links_are_told_as_they_appear_and_are_renamed() {
    in_network(|stage| {
        let network = &stage.system.network;
        stage.card("old");
        let appearances = network.appearances().unwrap();
        let next = || appearances.recv_timeout(Duration::from_secs(5)).unwrap();
        stage.card("vif1.0");
        let mut seen = vec![next()];
        // The other end of a pair appears as well.
        if seen[0] != Some(name("vif1.0")) {
            seen.push(next());
        }
        assert!(seen.contains(&Some(name("vif1.0"))), "{}: {seen:?}", stage.name);
        while appearances.recv_timeout(Duration::from_millis(100)).is_ok() {}
        let index = link(stage, "vif1.0").index;
        let changes = LinkChanges {
            name: Some(name("renamed")),
            up: Some(true),
            ..LinkChanges::default()
        };
        network.change(&network_grant(&[]), index, &changes).unwrap();
        assert_eq!(next(), Some(name("renamed")));
        stage.unplug("renamed");
        assert!(appearances.recv_timeout(Duration::from_millis(100)).is_err());
        stage.card("renamed");
        assert!(next().is_some());
    });
}

#[test]
fn a_card_of_a_bridge_is_told_once() {
    in_namespace(|| {
        let stage = Stage::linux();
        let appearances = stage.system.network.appearances().unwrap();
        stage.bridge("xenbr0");
        stage.card("vif1.0");
        ip("link set vif1.0 master xenbr0");
        ip("link set vif1.0 nomaster");
        ip("link set vif1.0 mtu 1400");
        std::thread::sleep(Duration::from_millis(100));
        let mut seen: Vec<_> = appearances.try_iter().map(|name| name.unwrap().to_string()).collect();
        seen.sort();
        assert_eq!(seen, ["pvif1.0", "vif1.0", "xenbr0"]);
    });
}

#[test]
fn a_thousand_cards_at_once_lose_no_name_unsaid() {
    in_namespace(|| {
        let stage = Stage::linux();
        let appearances = stage.system.network.appearances().unwrap();
        let script: String = (0..500)
            .map(|n| format!("link add vif{n}.0 type veth peer name p{n}\n"))
            .collect();
        let batch = stage.path("batch");
        std::fs::write(&batch, script).unwrap();
        ip(&format!("-batch {batch}"));
        std::thread::sleep(Duration::from_millis(300));
        let seen: Vec<_> = appearances.try_iter().collect();
        assert!(seen.contains(&None) || seen.len() == 1000, "{} names", seen.len());
    });
}
