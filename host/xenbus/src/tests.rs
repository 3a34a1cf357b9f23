//! Tests of the parsers.

use proptest::prelude::*;

use crate::{id, path, script, *};

fn key(text: &str) -> DeviceKey {
    text.parse().unwrap()
}

#[test]
fn kind_takes_lower_case_letters_digits_and_dashes() {
    for good in ["vbd", "vif", "vbd3", "qdisk", "9pfs", "v_4-l", &"k".repeat(32)] {
        assert_eq!(good.parse::<Kind>().unwrap().as_str(), good);
    }
    for bad in ["", "VBD", "vb d", "vbd/3", "..", "vbd\0", "vbd\n", "ü", &"k".repeat(33)] {
        assert!(bad.parse::<Kind>().is_err(), "{bad:?}");
    }
    assert_eq!("vbd".parse::<Kind>().unwrap(), Kind::VBD);
}

#[test]
fn handler_state_is_1_for_backend_processes_and_2_for_kernel() {
    let states = [Kind::VBD, Kind::VIF, Kind::VBD3, Kind::QDISK].map(|kind| kind.handler_state().number());
    assert_eq!(states, [2, 2, 1, 1]);
    assert!(Kind::VIF.needs_netdev() && !Kind::VBD.needs_netdev());
}

#[test]
fn number_has_one_spelling_and_reserved_domid_is_refused() {
    assert_eq!("32751".parse(), Ok(DomId(0x7fef)));
    assert_eq!("4294967295".parse(), Ok(DevId(u32::MAX)));
    assert_eq!("0".parse(), Ok(DevId(0)));
    for bad in [
        "",
        "-1",
        "+1",
        "01",
        "00",
        " 1",
        "1 ",
        "0x1",
        "٣",
        "4294967296",
        "99999999999999999999",
    ] {
        assert!(
            bad.parse::<DevId>().is_err() && bad.parse::<DomId>().is_err(),
            "{bad:?}"
        );
    }
    assert_eq!("32752".parse::<DomId>(), Err(id::Error::DomId("32752".into())));
}

#[test]
fn state_other_than_0_to_8_is_unknown() {
    for state in XenbusState::ALL {
        assert_eq!(XenbusState::parse(&state.number().to_string()), state);
    }
    for bad in ["", "9", "-1", "04", "4 ", "4\n", "10", "connected", "４"] {
        assert_eq!(XenbusState::parse(bad), XenbusState::Unknown, "{bad:?}");
    }
}

#[test]
fn status_is_matched_exactly() {
    for status in [
        HotplugStatus::Connected,
        HotplugStatus::Error,
        HotplugStatus::Busy,
        HotplugStatus::Disconnected,
    ] {
        assert_eq!(HotplugStatus::parse(Some(status.as_str())), status);
    }
    assert_eq!(HotplugStatus::parse(None), HotplugStatus::None);
    assert_eq!(HotplugStatus::parse(Some("")), HotplugStatus::None);
    for other in ["Connected", "connected ", "1"] {
        assert_eq!(HotplugStatus::parse(Some(other)), HotplugStatus::Other);
    }
}

#[test]
fn device_key_is_written_as_path_below_backend() {
    let device = key("vbd/3/51712");
    assert_eq!(
        (&device.kind, device.frontend, device.devid),
        (&Kind::VBD, DomId(3), DevId(51712))
    );
    assert_eq!(serde_json::to_string(&device).unwrap(), r#""vbd/3/51712""#);
    assert_eq!(serde_json::from_str::<DeviceKey>(r#""vbd/3/51712""#).unwrap(), device);
    for bad in [
        "",
        "vbd",
        "vbd/3",
        "vbd/3/51712/",
        "vbd/3/51712/state",
        "/vbd/3/51712",
        "vbd//3",
        "vbd/3/x",
        "vbd/40000/0",
    ] {
        assert!(bad.parse::<DeviceKey>().is_err(), "{bad:?}");
        assert!(serde_json::from_value::<DeviceKey>(bad.into()).is_err(), "{bad:?}");
    }
}

#[test]
fn identity_without_vm_matches_any_vm() {
    let of = |key: &str, vm: Option<&str>| Identity {
        key: key.parse().unwrap(),
        vm: vm.map(str::to_owned),
    };
    let [a, b, none] = [Some("/vm/a"), Some("/vm/b"), None].map(|vm| of("vif/3/0", vm));
    assert!(a.same_device(&a) && a.same_device(&none) && none.same_device(&b));
    assert!(!a.same_device(&b) && !a.same_device(&of("vif/3/1", Some("/vm/a"))));
    let text = serde_json::to_string(&a).unwrap();
    assert_eq!(serde_json::from_str::<Identity>(&text).unwrap(), a);
}

#[test]
fn frontend_path_follows_from_backend_path() {
    for (backend, frontend) in [
        (
            "/local/domain/0/backend/vbd/3/51712",
            "/local/domain/3/device/vbd/51712",
        ),
        (
            "/local/domain/5/backend/vbd3/3/51712",
            "/local/domain/3/device/vbd/51712",
        ),
        (
            "/local/domain/0/backend/qdisk/3/51728",
            "/local/domain/3/device/vbd/51728",
        ),
        ("/local/domain/5/backend/vif/12/1", "/local/domain/12/device/vif/1"),
        ("/local/domain/5/backend/9pfs/12/1", "/local/domain/12/device/9pfs/1"),
    ] {
        let path: BackendPath = backend.parse().unwrap();
        assert_eq!(
            (path.to_string().as_str(), path.frontend_path().as_str()),
            (backend, frontend)
        );
    }
    let path: BackendPath = "/local/domain/0/backend/vbd/3/51712".parse().unwrap();
    assert_eq!(path.node("state"), "/local/domain/0/backend/vbd/3/51712/state");
}

#[test]
fn backend_path_is_absolute_and_ends_at_the_device() {
    for bad in [
        "backend/vbd/3/51712",
        "/local/domain/0/backend/vbd/3",
        "/local/domain/0/backend/vbd/3/51712/state",
        "/local/domain/0/backend/vbd/3/51712/",
        "/local/domain/0/device/vbd/3/51712",
        "/local/domain/x/backend/vbd/3/51712",
    ] {
        assert!(bad.parse::<BackendPath>().is_err(), "{bad:?}");
    }
}

#[test]
fn watched_path_is_parsed_to_its_level() {
    let own = DomId(5);
    let device = |leaf| WatchLevel::Device {
        key: key("vbd/3/51712"),
        leaf,
    };
    for (below, level) in [
        ("", WatchLevel::Root),
        ("/vbd", WatchLevel::Kind(Kind::VBD)),
        ("/vbd/3", WatchLevel::Domain(Kind::VBD, DomId(3))),
        ("/vbd/3/51712", device(None)),
        ("/vbd/3/51712/state", device(Some("state"))),
        ("/vbd/3/51712/feature/x", device(Some("feature/x"))),
    ] {
        let relative = format!("backend{below}");
        assert_eq!(
            WatchedPath::parse(&relative, own),
            Ok(WatchedPath {
                backend: own,
                level: level.clone()
            })
        );
        let absolute = format!("/local/domain/7/backend{below}");
        assert_eq!(
            WatchedPath::parse(&absolute, own),
            Ok(WatchedPath {
                backend: DomId(7),
                level
            })
        );
    }
    for bad in [
        "",
        "/",
        "backends",
        "backend/",
        "backend//3",
        "/backend/vbd",
        "device/vbd/0",
        "/local/domain/7",
        "@releaseDomain",
    ] {
        assert!(WatchedPath::parse(bad, own).is_err(), "{bad:?}");
    }
    let error = WatchedPath::parse("backend/vbd/40000/0", own);
    assert_eq!(error, Err(path::Error::Name(id::Error::DomId("40000".into()))));
}

#[test]
fn script_is_bare_name_or_file_in_xens_directory() {
    use script::Error::{Characters, Elsewhere, Empty, TooLong};
    for (text, name) in [
        ("block", "block"),
        ("/etc/xen/scripts/vif-bridge", "vif-bridge"),
        ("block-iscsi.sh", "block-iscsi.sh"),
    ] {
        assert_eq!(ScriptName::parse(text).unwrap().as_str(), name);
    }
    for (text, error) in [
        ("", Empty),
        ("/etc/xen/scripts/", Empty),
        ("..", Elsewhere),
        (".", Elsewhere),
        ("/etc/xen/scripts/..", Elsewhere),
        ("/etc/xen/scripts/../../../bin/sh", Elsewhere),
        ("/etc/xen/scripts//block", Elsewhere),
        ("/bin/sh", Elsewhere),
        ("scripts/block", Elsewhere),
        ("block\n", Characters),
        ("block\0", Characters),
        ("block; rm", Characters),
        ("\u{1b}[2J", Characters),
        ("blöck", Characters),
        (&"b".repeat(65), TooLong),
        (&"b".repeat(65536), TooLong),
    ] {
        let refused = ScriptName::parse(text).unwrap_err();
        assert_eq!(refused, error, "{text:?}");
        assert!(refused.to_string().starts_with("script: "));
    }
}

#[test]
fn error_message_shortens_an_untrusted_text() {
    let error = "x".repeat(65536).parse::<DeviceKey>().unwrap_err();
    assert!(error.to_string().len() < 128);
    let error = "\u{1b}\n".parse::<Kind>().unwrap_err();
    assert!(!error.to_string().contains(char::is_control));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsed_text_is_written_unchanged(text in r"(/local/domain/[0-9]{1,5}/)?backend(/[a-z0-9]{1,4}(/[0-9]{1,5}(/[0-9]{1,10}(/[a-z/]*)?)?)?)?|\PC*") {
        if let Ok(path) = text.parse::<BackendPath>() {
            prop_assert_eq!(path.to_string(), text.clone());
        }
        if let Ok(WatchedPath { backend, level }) = WatchedPath::parse(&text, DomId(0)) {
            let below = match level {
                WatchLevel::Root => String::new(),
                WatchLevel::Kind(kind) => format!("/{kind}"),
                WatchLevel::Domain(kind, domid) => format!("/{kind}/{domid}"),
                WatchLevel::Device { key, leaf: None } => format!("/{key}"),
                WatchLevel::Device { key, leaf: Some(leaf) } => format!("/{key}/{leaf}"),
            };
            let prefix = if text.starts_with('/') { format!("/local/domain/{backend}/") } else { String::new() };
            prop_assert_eq!(format!("{prefix}backend{below}"), text.clone());
        }
        if let Ok(key) = text.parse::<DeviceKey>() {
            prop_assert_eq!(key.to_string(), text.clone());
        }
        if let Ok(name) = ScriptName::parse(&text) {
            prop_assert!(text.ends_with(name.as_str()));
        }
    }
}
