//! A backend's directory with whatever nodes, seen again and again by its device's machine.

use std::collections::BTreeMap;

use xenplug_xenbus::{DeviceFsm, Event, FsmAction, Identity, Kind, Mode, Observation, WriteOutcome};

/// Nodes that are looked at, and what may stand in them besides what the bytes say.
const NODES: [&str; 3] = ["state", "online", "hotplug-status"];
const VALUES: [&str; 12] = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "connected",
    "disconnected",
    "error",
    "busy",
    "",
];

/// Steps of three bytes: each changes the directory or tells the machine how something has ended.
pub(crate) fn check(bytes: &[u8]) {
    let Some((setting, steps)) = bytes.split_first() else {
        return;
    };
    let mode = if setting & 1 == 0 {
        Mode::DriverDomain
    } else {
        Mode::Dom0
    };
    let kind = [Kind::VBD, Kind::VIF, Kind::QDISK, Kind::VBD3][usize::from(setting >> 1) % 4].clone();
    let identity = Identity {
        key: format!("{kind}/3/1").parse().expect("a device"),
        vm: (setting & 128 != 0).then(|| "/vm/1".to_owned()),
    };
    let mut machine = DeviceFsm::new(mode, kind);
    let mut nodes = BTreeMap::new();
    let mut present = false;
    let mut doing: Option<FsmAction> = None;
    for step in steps.chunks_exact(3) {
        let [what, with, text] = [step[0], step[1], step[2]];
        let event = match what % 8 {
            0..=2 => {
                present = true;
                let node = NODES[usize::from(what % 8)];
                let value = VALUES.get(usize::from(with)).map_or_else(
                    || String::from_utf8_lossy(&[with, text]).into_owned(),
                    |value| (*value).to_owned(),
                );
                nodes.insert(node, value);
                Event::Changed
            }
            3 => {
                present = with & 1 == 0;
                nodes.clear();
                Event::Changed
            }
            4 => Event::Add,
            5 => Event::Remove,
            6 => Event::AddCancelled,
            _ => match doing {
                Some(action) => ended(action, with),
                None => Event::Changed,
            },
        };
        let answered = matches!(
            event,
            Event::HandlerDone | Event::HandlerFailed | Event::Released | Event::ReleaseFailed | Event::Written(_)
        );
        if answered {
            doing = None;
        }
        let mut next = machine.apply(&event);
        while let Some(FsmAction::ReadState(ticket)) = next {
            let gone = text & 1 == 1;
            let value = |name: &str| nodes.get(name).cloned();
            let seen = Observation::read(identity.clone(), present, gone, value);
            next = machine.apply(&Event::StateRead(ticket, seen));
        }
        match next {
            Some(FsmAction::StopHandler) => assert_eq!(doing, Some(FsmAction::RunHandler), "nothing is to be stopped"),
            Some(FsmAction::Forget) | None => {}
            Some(action) => {
                assert_eq!(doing, None, "{action:?} beside it");
                doing = Some(action);
            }
        }
        assert_eq!(
            doing.is_some(),
            machine.phase().busy(),
            "{:?} while {doing:?}",
            machine.phase()
        );
        assert!(!(machine.phase().settled() && machine.phase().holds()));
    }
}

/// How an action may end.
fn ended(action: FsmAction, how: u8) -> Event {
    match action {
        FsmAction::RunHandler if how & 1 == 0 => Event::HandlerDone,
        FsmAction::RunHandler => Event::HandlerFailed,
        FsmAction::Release if how & 1 == 0 => Event::Released,
        FsmAction::Release => Event::ReleaseFailed,
        _ => Event::Written(
            [
                WriteOutcome::Done,
                WriteOutcome::Stale,
                WriteOutcome::Failed,
                WriteOutcome::Unknown,
            ][usize::from(how) % 4],
        ),
    }
}
