//! Start-up: what an earlier daemon left, by its journal, the kernel and the store.
//!
//! What is connected is taken up as it is, so that guests notice nothing. What was half done is given back and, if the
//! device still wants it, done again. What has gone is given back.

use std::sync::Arc;

use anyhow::Context;
use tokio::{task::spawn_local, time::timeout};
use tracing::{info, warn};
use xenplug_control::script::ScriptAction;
use xenplug_runtime::{DeviceResources, Effect, Grants, Header};
use xenplug_xenbus::{DeviceFsm, HotplugStatus, Mode, Phase, RecoveredState, WriteOutcome};

use crate::{
    context::DaemonContext,
    device::{self, ScriptCall},
    directory::Directory,
    registry::Registry,
    script::LIMIT,
};

/// Takes up every device of the journal.
pub(crate) async fn run(host: &Arc<DaemonContext>) -> anyhow::Result<()> {
    let replay = host
        .journal
        .replay::<Header, Effect>()
        .context("the journal cannot be read")?;
    for aside in replay.aside {
        warn!(record = aside.name, path = %aside.path.display(), cause = aside.cause, "a damaged record was set aside");
    }
    for name in replay.torn {
        info!(record = name, "a record that was only begun was removed");
    }
    // All is taken hold of before any device goes on: one that begins anew could else take the loop device that
    // another, further down, had before the crash.
    let mut found = Vec::with_capacity(replay.records.len());
    for replayed in replay.records {
        found.push(find(host, DeviceResources::resume(replayed, &host.shared)).await?);
    }
    for found in found {
        let header = found.adopted.resources.header();
        let (part, told) = (header.part(), header.parameters.clone());
        Registry::adopt(host, &part, found.machine, found.adopted);
        if found.again {
            // In dom0 the script that asked has had its answer, or is believed to have failed and comes to remove it.
            let (ask, answered) = ScriptCall::new(ScriptAction::Add, told);
            Registry::ask(host, &part, ask);
            spawn_local(timeout(LIMIT, answered));
        }
    }
    Ok(())
}

/// What became of a device.
struct Found {
    machine: DeviceFsm,
    adopted: device::AdoptedDevice,
    /// It was connected, and is to be once more.
    again: bool,
}

/// Finds out what became of a device, and takes hold of what is still there.
async fn find(host: &Arc<DaemonContext>, mut resources: DeviceResources) -> anyhow::Result<Found> {
    let header = resources.header().clone();
    let key = header.identity.key.clone();
    if header.introduced {
        host.domains.was_introduced(key.frontend).await?;
    }
    let directory = Directory::of(host, header.part(), Phase::Absent);
    let seen = directory
        .read_state()
        .await
        .with_context(|| format!("{key} cannot be looked at"))?;
    let mut again = false;
    let (found, failure) = if seen.is_of(&header.identity) && !seen.leaving() && !resources.is_releasing() {
        let (back, gone) = take_hold(host, resources).await?;
        resources = back;
        match (gone.is_empty(), seen.status == HotplugStatus::Connected) {
            // The helper of another device took it up: its own handler had not come as far.
            (true, true) if key.kind.connects_itself() && !resources.takes_part() => (RecoveredState::Unfinished, None),
            (true, _) => (RecoveredState::Connected, None),
            // If the kernel has not taken up what was published, it still can take up something else: that it was is
            // taken back, and the handler runs once more.
            (false, true) => {
                let cause = format!("was lost while xenplugd was away: {}", gone.join("; "));
                let failure = device::Failure::new(&header.plugin, &cause);
                let retracted = directory
                    .retract(&header.identity, Some(&failure.text))
                    .await
                    .with_context(|| format!("{key} cannot be taken back"))?;
                again = retracted == WriteOutcome::Done;
                if again {
                    (RecoveredState::Unfinished, None)
                } else {
                    (RecoveredState::Lost, Some(failure))
                }
            }
            (false, false) => (RecoveredState::Unfinished, None),
        }
    } else if seen.mode(host.mode) == Mode::DriverDomain
        && seen.is_of(&header.identity)
        && !seen.leaving()
        && seen.status == HotplugStatus::Connected
    {
        // Nobody asked for its end.
        let cause = "was lost, and that could not be told before xenplugd ended";
        (RecoveredState::Lost, Some(device::Failure::new(&header.plugin, cause)))
    } else {
        (RecoveredState::Unfinished, None)
    };
    info!(device = %key, plugin = header.plugin, found = ?found, "taken up from the journal");
    let machine = DeviceFsm::adopted(host.mode, header.identity, found);
    let adopted = device::AdoptedDevice { resources, failure };
    Ok(Found {
        machine,
        adopted,
        again,
    })
}

/// Takes hold of what a device holds, under the grants of its plugin as they are today.
async fn take_hold(
    host: &Arc<DaemonContext>,
    mut resources: DeviceResources,
) -> anyhow::Result<(DeviceResources, Vec<String>)> {
    let owned = Arc::clone(host);
    let taken = host.workers.run(move || {
        let host = owned;
        let plugins = host.plugins.current();
        let none = Grants::default();
        let plugin = plugins.named(&resources.header().plugin);
        let grants = plugin.map_or(&none, |plugin| plugin.grants());
        let gone = resources.adopt(&host.system, grants, &host.shared);
        (resources, gone)
    });
    Ok(taken.await?)
}
