use std::sync::Arc;

use super::*;
use crate::{
    Platform,
    grant::{Access, BlockGrant, NetworkGrant, Operator, PathRule},
};

fn host() -> (Platform, Arc<SimHost>, BlockGrant) {
    let (system, host) = Platform::simulated();
    host.add_file("/srv/a.img", 1 << 20);
    let rules = vec![PathRule {
        path: "/".into(),
        access: Access::ReadWrite,
    }];
    (
        system,
        host,
        BlockGrant::new(&Operator::of_configuration(), rules, true),
    )
}

#[test]
fn planned_call_fails_and_no_other() {
    let (system, host, grant) = host();
    let error = Error::Busy("planned".into());
    host.fail(Operation::Open, 2, error.clone());
    let open = || {
        system
            .block
            .open(&grant, "/srv/a.img", Access::ReadOnly)
            .map(|source| system.block.close(source.id))
    };
    assert_eq!([open(), open(), open()], [Ok(()), Err(error.clone()), Ok(())]);
    assert_eq!(host.calls(Operation::Open), 3);
    host.fail(Operation::Open, 1, error.clone());
    assert_eq!(open(), Err(error));
}

#[test]
fn snapshot_shows_leftovers() {
    let (system, host, grant) = host();
    let vif: IfName = "vif1.0".parse().expect("a name");
    let before = host.snapshot();
    let source = system
        .block
        .open(&grant, "/srv/a.img", Access::ReadWrite)
        .expect("granted");
    assert_ne!(host.snapshot(), before);
    system.block.close(source.id);
    assert_eq!(host.snapshot(), before);

    host.add_link(&vif);
    let before = host.snapshot();
    let index = host.links()[0].index;
    let network = NetworkGrant::new(&Operator::of_configuration(), Vec::new());
    system
        .network
        .add_address(&network, index, "10.0.0.1".parse().expect("an address"))
        .expect("no fault");
    assert_ne!(host.snapshot(), before);
    system
        .network
        .remove_address(&network, index, "10.0.0.1".parse().expect("an address"))
        .expect("no fault");
    assert_eq!(host.snapshot(), before);
}

#[test]
fn loop_device_in_use_survives_its_daemon() {
    let (system, host, grant) = host();
    let source = system
        .block
        .open(&grant, "/srv/a.img", Access::ReadOnly)
        .expect("granted");
    let options = |tag: &str| crate::block::LoopOptions {
        read_only: true,
        direct_io: false,
        tag: tag.into(),
    };
    let device = system
        .block
        .attach_loop(&grant, &source, &options("kept"))
        .expect("granted");
    system
        .block
        .attach_loop(&grant, &source, &options("gone"))
        .expect("granted");
    host.open_loop(device.number);
    drop(system);
    assert_eq!(host.loops(), std::slice::from_ref(&device));
    assert_eq!(host.snapshot().sources, 0);

    let system = host.system();
    assert_eq!(system.block.adopt_loop(&grant, &device), Ok(Some(device.clone())));
    host.close_loop(device.number);
    assert_eq!(host.loops(), std::slice::from_ref(&device));
    system.block.detach_loop(&device).expect("no fault");
    assert_eq!(host.loops(), []);
}
