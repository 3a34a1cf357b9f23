//! Tests of the names and of single decisions.

use xenplug_xenbus::{HotplugStatus, Kind, XenbusState};

use super::*;

#[test]
fn request_path_determines_the_frontend_path() {
    let path: RequestPath = "/hotplug/domain/1/vbd/3/51712".parse().unwrap();
    assert_eq!(path.to_string(), "/hotplug/domain/1/vbd/3/51712");
    assert_eq!(path.frontend_path(), "/local/domain/3/device/vbd/51712");
    assert_eq!(
        path.backend_path(Kind::QDISK).to_string(),
        "/local/domain/1/backend/qdisk/3/51712"
    );
    for text in [
        "",
        "/hotplug/domain/1/vbd/3",
        "/hotplug/domain/1/vbd/3/51712/state",
        "/hotplug/domain/01/vbd/3/51712",
        "/hotplug/domain/1/console/3/0",
        "hotplug/domain/1/vbd/3/51712",
    ] {
        assert!(text.parse::<RequestPath>().is_err(), "{text:?}");
    }
}

#[test]
fn class_is_served_by_kinds_with_its_frontend() {
    for (class, kind, serves) in [
        (Class::Vbd, "vbd", true),
        (Class::Vbd, "vbd3", true),
        (Class::Vbd, "qdisk", true),
        (Class::Vbd, "vif", false),
        (Class::Vif, "vif", true),
        (Class::Vif, "qdisk", false),
        (Class::Vif, "console", false),
    ] {
        assert_eq!(class.is_served_by(&kind.parse().unwrap()), serves, "{class} {kind}");
    }
}

#[test]
fn request_id_is_32_digits() {
    let id = RequestId(0xab);
    assert_eq!(id.to_string().parse(), Ok(id));
    let upper = id.to_string().to_uppercase();
    for text in ["", "ab", "+0000000000000000000000000000000", &upper] {
        assert!(text.parse::<RequestId>().is_err(), "{text:?}");
    }
}

#[test]
fn state_is_one_digit_both_ways() {
    for digit in 1..=6 {
        let text = digit.to_string();
        assert_eq!(State::parse(&text).as_str(), text);
    }
    for text in ["", "0", "7", "01", " 1", "x"] {
        assert_eq!(State::parse(text), State::Unknown);
    }
}

fn backend(request_id: Option<u128>) -> daemon::Backend {
    daemon::Backend {
        request_id: request_id.map(RequestId),
        state: XenbusState::InitWait,
        online: true,
        status: HotplugStatus::None,
        error: String::new(),
    }
}

fn snapshot(state: State) -> daemon::DaemonSnapshot {
    let request = Request {
        id: RequestId(1),
        vm: "/vm/a".to_owned(),
        state,
        force: false,
        error: String::new(),
    };
    daemon::DaemonSnapshot {
        request: Some(request),
        refusal: String::new(),
        backend: None,
        frontend: true,
        held: false,
    }
}

#[test]
fn device_of_libxl_is_left_alone() {
    for state in [State::Requested, State::Accepted, State::Detaching] {
        for held in [false, true] {
            let snapshot = daemon::DaemonSnapshot {
                backend: Some(backend(None)),
                held,
                ..snapshot(state)
            };
            let next = daemon::next(&snapshot);
            assert!(
                matches!(next, Some(daemon::DaemonAction::Close(_))),
                "{state:?}: {next:?}"
            );
        }
    }
    let unowned = daemon::DaemonSnapshot {
        request: None,
        backend: Some(backend(None)),
        ..snapshot(State::Requested)
    };
    assert_eq!(daemon::next(&unowned), None);
}

#[test]
fn backend_without_its_request_is_removed() {
    let orphan = daemon::DaemonSnapshot {
        request: None,
        backend: Some(backend(Some(1))),
        ..snapshot(State::Requested)
    };
    assert_eq!(
        daemon::next(&orphan),
        Some(daemon::DaemonAction::RemoveBackend(String::new()))
    );
    let of_another = daemon::DaemonSnapshot {
        backend: Some(backend(Some(2))),
        ..snapshot(State::Requested)
    };
    assert_eq!(
        daemon::next(&of_another),
        Some(daemon::DaemonAction::RemoveBackend(String::new()))
    );
}

#[test]
fn refused_request_has_an_error_and_creates_nothing() {
    let refused = daemon::DaemonSnapshot {
        refusal: "version 2 is not spoken here".to_owned(),
        ..snapshot(State::Requested)
    };
    assert_eq!(
        daemon::next(&refused),
        Some(daemon::DaemonAction::Close("version 2 is not spoken here".to_owned()))
    );
}

#[test]
fn first_error_is_kept() {
    let mut failed = snapshot(State::Accepted);
    failed.backend = Some(daemon::Backend {
        status: HotplugStatus::Busy,
        error: "phy: in use".to_owned(),
        ..backend(Some(1))
    });
    assert_eq!(
        daemon::next(&failed),
        Some(daemon::DaemonAction::RemoveBackend("phy: in use".to_owned()))
    );
    failed.backend = None;
    failed.request.as_mut().unwrap().error = "phy: in use".to_owned();
    assert_eq!(daemon::next(&failed), Some(daemon::DaemonAction::Close(String::new())));
}
