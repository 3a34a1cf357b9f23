//! Backend directories with any nodes, read repeatedly by the state machine of their device.

use std::collections::BTreeMap;

use xenplug_xenbus::{DeviceFsm, Event, FsmAction, Identity, Kind, Mode, Observation, WriteOutcome};

/// Nodes that the state machine reads, and values for them besides those from the input.
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

/// Runs steps of three bytes: each changes the directory, or ends the current action.
pub(crate) fn check(bytes: &[u8]) {
    let Some((setting, steps)) = bytes.split_first() else {
        return;
    };
    let mode = if setting & 1 == 0 {
        Mode::DriverDomain
    } else {
        Mode::Dom0
    };
    let device_kind = [Kind::VBD, Kind::VIF, Kind::QDISK, Kind::VBD3][usize::from(setting >> 1) % 4].clone();
    let identity = Identity {
        key: format!("{device_kind}/3/1").parse().expect("a device"),
        vm: (setting & 128 != 0).then(|| "/vm/1".to_owned()),
    };
    let mut fsm = DeviceFsm::new(mode, device_kind);
    let mut nodes = BTreeMap::new();
    let mut present = false;
    let mut running: Option<FsmAction> = None;
    for step in steps.chunks_exact(3) {
        let [kind, value, text] = [step[0], step[1], step[2]];
        let event = match kind % 8 {
            0..=2 => {
                present = true;
                let node = NODES[usize::from(kind % 8)];
                let value = VALUES.get(usize::from(value)).map_or_else(
                    || String::from_utf8_lossy(&[value, text]).into_owned(),
                    |value| (*value).to_owned(),
                );
                nodes.insert(node, value);
                Event::Changed
            }
            3 => {
                present = value & 1 == 0;
                nodes.clear();
                Event::Changed
            }
            4 => Event::Add,
            5 => Event::Remove,
            6 => Event::AddCancelled,
            _ => match running {
                Some(action) => ended(action, value),
                None => Event::Changed,
            },
        };
        let finished = matches!(
            event,
            Event::HandlerDone | Event::HandlerFailed | Event::Released | Event::ReleaseFailed | Event::Written(_)
        );
        if finished {
            running = None;
        }
        let mut next = fsm.apply(&event);
        while let Some(FsmAction::ReadState(ticket)) = next {
            let gone = text & 1 == 1;
            let value = |name: &str| nodes.get(name).cloned();
            let observation = Observation::read(identity.clone(), present, gone, value);
            next = fsm.apply(&Event::StateRead(ticket, observation));
        }
        match next {
            Some(FsmAction::StopHandler) => assert_eq!(running, Some(FsmAction::RunHandler), "no handler to stop"),
            Some(FsmAction::Forget) | None => {}
            Some(action) => {
                assert_eq!(running, None, "{action:?} beside another action");
                running = Some(action);
            }
        }
        assert_eq!(
            running.is_some(),
            fsm.phase().busy(),
            "{:?} while {running:?}",
            fsm.phase()
        );
        assert!(!(fsm.phase().settled() && fsm.phase().holds()));
    }
}

/// Returns the event of a possible end of an action.
fn ended(action: FsmAction, outcome: u8) -> Event {
    match action {
        FsmAction::RunHandler if outcome & 1 == 0 => Event::HandlerDone,
        FsmAction::RunHandler => Event::HandlerFailed,
        FsmAction::Release if outcome & 1 == 0 => Event::Released,
        FsmAction::Release => Event::ReleaseFailed,
        _ => Event::Written(
            [
                WriteOutcome::Done,
                WriteOutcome::Stale,
                WriteOutcome::Failed,
                WriteOutcome::Unknown,
            ][usize::from(outcome) % 4],
        ),
    }
}
