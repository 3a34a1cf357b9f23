//! Who goes without a word: a guest, the driver domain, the store; and what there is no room for.

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{attached_below, detach_below};

use crate::{
    moments::{Kept, Moment, at_each_moment},
    stage::{Asked, Stage},
};

/// What a driver domain may own, unless it is told otherwise (tools/xenstored/core.c, `quota_nb_entry_per_domain`).
const NODES: u32 = 1000;

#[test]
fn guest_death_during_attach_or_detach_leaves_nothing() -> Result<()> {
    at_each_moment(|stage, disk, moment, child, kept| {
        stage.machine.xenstored().kill_domain(3)?;
        stage.machine.toolstack().bury(3)?;
        if moment == Moment::Wanted {
            stage.machine.daemon_mut()?.restart()?;
        }
        drop(kept);
        let done = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&done.stderr);
        match moment {
            Moment::Wanted | Moment::Taken => ensure!(said.contains("the guest has gone"), "{said}"),
            Moment::Used => stage.expect(disk, "6")?,
            Moment::Unwanted | Moment::Lingering => ensure!(done.status.success(), "{said}"),
        }
        assert_eq!(attached_below(stage.machine.directory())?, []);
        // The played kernel plays the guest's as well: not before the guest's end was seen.
        stage.let_go_on(moment, Kept::default())?;
        stage.machine.xenstored().revive_domain(3)?;
        stage.machine.toolstack().build(3)?;
        Ok(())
    })
}

#[test]
fn dead_driver_domains_devices_can_be_removed_at_once() -> Result<()> {
    let mut stage = Stage::new()?;
    let (disk, card) = (stage.disk("a.img")?, stage.card());
    for asked in [&disk, &card] {
        stage.attach(asked)?;
        stage.expect(asked, "4")?;
    }
    stage.machine.daemon_mut()?.kill()?;
    stage.machine.stop_kernel();
    stage.machine.xenstored().kill_domain(1)?;
    stage.machine.toolstack().bury(1)?;
    // A real one's devices go with it.
    detach_below(stage.machine.directory())?;
    let said = stage.fails("attach", &disk, 1)?;
    ensure!(said.contains("domain 1 has gone"), "{said}");
    for asked in [&disk, &card] {
        stage.detach(asked)?;
        assert_eq!(stage.state(asked)?, None);
        assert_eq!(stage.machine.connect()?.find(&asked.device.frontend())?, None);
    }
    Ok(())
}

#[test]
fn store_replaced_during_attach_or_detach_is_survived() -> Result<()> {
    at_each_moment(|stage, _, moment, child, kept| {
        stage.machine.xenstored().live_update()?;
        if moment == Moment::Wanted {
            stage.machine.daemon_mut()?.restart()?;
        }
        stage.let_go_on(moment, kept)?;
        let done = child.wait_with_output()?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(())
    })
}

impl Stage {
    /// The nodes that the driver domain owns.
    fn nodes(&self) -> Result<u32> {
        let used = self.machine.connect()?.control(&["quota", "1"])?;
        let nodes = used.lines().find_map(|line| line.strip_prefix("nodes"));
        let nodes = nodes.with_context(|| format!("no number of nodes in {used:?}"))?;
        Ok(nodes
            .trim_start_matches([' ', ':'])
            .split(' ')
            .next()
            .unwrap_or_default()
            .parse()?)
    }

    /// Lets it own no more than that.
    fn allow_nodes(&self, number: u32) -> Result<()> {
        let said = self
            .machine
            .connect()?
            .control(&["quota", "set", "nodes", &number.to_string()])?;
        ensure!(said == "OK", "quota set: {said}");
        Ok(())
    }

    /// Asks for what there is no room for.
    fn has_no_room_for(&self, asked: &Asked) -> Result<()> {
        let said = self.fails("attach", asked, 1)?;
        ensure!(said.contains("this domain's quota in xenstored is used up"), "{said}");
        let mut store = self.machine.connect()?;
        for path in [asked.request(), asked.device.backend(), asked.device.frontend()] {
            assert_eq!(store.find(&path)?, None, "{path} is left");
        }
        assert_eq!(attached_below(self.machine.directory())?, []);
        Ok(())
    }
}

#[test]
fn driver_domain_over_quota_fails_requests_until_it_has_room() -> Result<()> {
    let stage = Stage::new()?;
    let baseline = stage.machine.baseline()?;
    let used = stage.nodes()?;
    for asked in [stage.disk("a.img")?, stage.card()] {
        // For nothing at all; and for some of its nodes.
        for room in [0, 10] {
            stage.allow_nodes(used + room)?;
            stage.has_no_room_for(&asked)?;
            assert_eq!(stage.nodes()?, used);
        }
        stage.allow_nodes(NODES)?;
        stage.attach(&asked)?;
        stage.expect(&asked, "4")?;
        stage.detach(&asked)?;
    }
    baseline.assert_same(&stage.machine)
}
