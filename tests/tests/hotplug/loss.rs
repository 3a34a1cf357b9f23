//! Sudden loss of a guest, the driver domain or the store, and a store without space.

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{attached_below, detach_below};

use crate::{
    crash::{Blocker, Phase, in_each_phase},
    fixture::{Fixture, Requested},
};

/// Default node quota of a domain (tools/xenstored/core.c, `quota_nb_entry_per_domain`).
const NODES: u32 = 1000;

#[test]
fn guest_death_during_attach_or_detach_leaves_nothing() -> Result<()> {
    in_each_phase(|fixture, disk, phase, child, blocker| {
        fixture.host.xenstored().kill_domain(3)?;
        fixture.host.toolstack().bury(3)?;
        if phase == Phase::Wanted {
            fixture.host.daemon_mut()?.restart()?;
        }
        drop(blocker);
        let done = child.wait_with_output()?;
        let message = String::from_utf8_lossy(&done.stderr);
        match phase {
            Phase::Wanted | Phase::Taken => ensure!(message.contains("the guest has gone"), "{message}"),
            Phase::Used => fixture.expect(disk, "6")?,
            Phase::Unwanted | Phase::Lingering => ensure!(done.status.success(), "{message}"),
        }
        assert_eq!(attached_below(fixture.host.directory())?, []);
        // The played kernel also plays the guest's kernel, so it continues only after the daemon has seen the guest's
        // end.
        fixture.let_go_on(phase, Blocker::default())?;
        fixture.host.xenstored().revive_domain(3)?;
        fixture.host.toolstack().build(3)?;
        Ok(())
    })
}

#[test]
fn dead_driver_domains_devices_can_be_removed_at_once() -> Result<()> {
    let mut fixture = Fixture::new()?;
    let (disk, vif) = (fixture.disk("a.img")?, fixture.vif());
    for requested in [&disk, &vif] {
        fixture.attach(requested)?;
        fixture.expect(requested, "4")?;
    }
    fixture.host.daemon_mut()?.kill()?;
    fixture.host.stop_kernel();
    fixture.host.xenstored().kill_domain(1)?;
    fixture.host.toolstack().bury(1)?;
    // The devices of a real driver domain go with it.
    detach_below(fixture.host.directory())?;
    let message = fixture.fails("attach", &disk, 1)?;
    ensure!(message.contains("domain 1 is gone"), "{message}");
    for requested in [&disk, &vif] {
        fixture.detach(requested)?;
        assert_eq!(fixture.state(requested)?, None);
        assert_eq!(fixture.host.connect()?.find(&requested.device.frontend())?, None);
    }
    Ok(())
}

#[test]
fn store_replaced_during_attach_or_detach_is_survived() -> Result<()> {
    in_each_phase(|fixture, _, phase, child, blocker| {
        fixture.host.xenstored().live_update()?;
        if phase == Phase::Wanted {
            fixture.host.daemon_mut()?.restart()?;
        }
        fixture.let_go_on(phase, blocker)?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    })
}

impl Fixture {
    /// Counts the nodes that the driver domain owns.
    fn nodes(&self) -> Result<u32> {
        let used = self.host.connect()?.control(&["quota", "1"])?;
        let nodes = used.lines().find_map(|line| line.strip_prefix("nodes"));
        let nodes = nodes.with_context(|| format!("no number of nodes in {used:?}"))?;
        Ok(nodes
            .trim_start_matches([' ', ':'])
            .split(' ')
            .next()
            .unwrap_or_default()
            .parse()?)
    }

    /// Limits the number of nodes of the driver domain.
    fn allow_nodes(&self, number: u32) -> Result<()> {
        let message = self
            .host
            .connect()?
            .control(&["quota", "set", "nodes", &number.to_string()])?;
        ensure!(message == "OK", "quota set: {message}");
        Ok(())
    }

    /// Requests a device that exceeds the quota.
    fn has_no_space_for(&self, requested: &Requested) -> Result<()> {
        let message = self.fails("attach", requested, 1)?;
        ensure!(
            message.contains("this domain's quota in xenstored is used up"),
            "{message}"
        );
        let mut store = self.host.connect()?;
        for path in [
            requested.request(),
            requested.device.backend(),
            requested.device.frontend(),
        ] {
            assert_eq!(store.find(&path)?, None, "{path} is left");
        }
        assert_eq!(attached_below(self.host.directory())?, []);
        Ok(())
    }
}

#[test]
fn driver_domain_over_quota_fails_requests_until_it_has_room() -> Result<()> {
    let fixture = Fixture::new()?;
    let baseline = fixture.host.baseline()?;
    let used = fixture.nodes()?;
    for requested in [fixture.disk("a.img")?, fixture.vif()] {
        // Space for no node, and for some of them.
        for space in [0, 10] {
            fixture.allow_nodes(used + space)?;
            fixture.has_no_space_for(&requested)?;
            assert_eq!(fixture.nodes()?, used);
        }
        fixture.allow_nodes(NODES)?;
        fixture.attach(&requested)?;
        fixture.expect(&requested, "4")?;
        fixture.detach(&requested)?;
    }
    baseline.assert_same(&fixture.host)
}
