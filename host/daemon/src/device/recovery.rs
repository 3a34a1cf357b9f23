//! Recovery at start: adopts what an earlier daemon left, by its journal, the kernel and the store.
//!
//! A connected device is adopted as it is, so that its guest notices nothing. A device that was half done is released and,
//! if it is still wanted, connected again. A device that is gone is released.

use std::sync::Arc;

use anyhow::Context;
use tokio::{task::spawn_local, time::timeout};
use tracing::{info, warn};
use xenplug_control::script::ScriptAction;
use xenplug_runtime::{DeviceResources, Grants, Header, HostAccess, Resource};
use xenplug_xenbus::{DeviceFsm, HotplugStatus, Mode, Phase, RecoveredState, WriteOutcome};

use super::{
    context::DeviceContext,
    driver::AdoptedDevice,
    failure::Failure,
    observe::Directory,
    registry::Registry,
    script_calls::{SCRIPT_LIMIT, ScriptCall},
};

/// Adopts every device of the journal.
pub(crate) async fn run(context: &Arc<DeviceContext>, registry: &Registry) -> anyhow::Result<()> {
    let replay = context
        .daemon
        .journal
        .replay::<Header, Resource>()
        .context("cannot read the journal")?;
    for aside in replay.aside {
        let (name, path) = (&aside.name, aside.path.display());
        warn!(record = name, %path, "journal: damaged record {name} is set aside as {path}: {}", aside.cause);
    }
    for name in replay.torn {
        info!(record = name, "journal: removed record {name}, which was only begun");
    }
    // All resources are adopted before any device goes on: a device that begins again could otherwise take the loop
    // device that another, later in the journal, had before the crash.
    let mut recovered = Vec::with_capacity(replay.records.len());
    for replayed in replay.records {
        let resources = DeviceResources::resume(replayed, &context.shared);
        recovered.push(recover(context, resources).await?);
    }
    for device in recovered {
        let header = device.adopted.resources.header();
        let (instance, arguments) = (header.instance(), header.parameters.clone());
        registry.adopt(&instance, device.fsm, device.adopted);
        if device.reconnect {
            // In dom0 the script has had its answer, or its toolstack assumes that it failed and removes the device.
            let (call, answered) = ScriptCall::new(ScriptAction::Add, arguments);
            registry.call(&instance, call);
            spawn_local(timeout(SCRIPT_LIMIT, answered));
        }
    }
    Ok(())
}

/// A device of the journal after its resources were adopted.
struct RecoveredDevice {
    fsm: DeviceFsm,
    adopted: AdoptedDevice,
    /// True if the device was connected and is to be connected again.
    reconnect: bool,
}

/// Compares a device's record with the store and the kernel, and adopts what is still there.
async fn recover(context: &Arc<DeviceContext>, mut resources: DeviceResources) -> anyhow::Result<RecoveredDevice> {
    let daemon = &context.daemon;
    let header = resources.header().clone();
    let key = header.identity.key.clone();
    if header.introduced {
        context.domains.was_introduced(key.frontend).await?;
    }
    let directory = Directory::of(context, header.instance(), Phase::Absent);
    let seen = directory
        .read_state()
        .await
        .with_context(|| format!("{key}: cannot read the device"))?;
    let wanted = seen.is_of(&header.identity) && !seen.leaving();
    let connected = seen.status == HotplugStatus::Connected;
    let mut reconnect = false;
    let (state, failure) = if wanted && !resources.is_releasing() {
        let (back, missing) = adopt_resources(context, resources).await?;
        resources = back;
        match (missing.is_empty(), connected) {
            // The helper process of another device took it up: its own handler had not come as far.
            (true, true) if key.kind.connects_itself() && !resources.uses_shared_helper() => {
                (RecoveredState::Unfinished, None)
            }
            (true, _) => (RecoveredState::Connected, None),
            // If the kernel has not acted on what was published, it can still act on something else: the connection is
            // withdrawn, and the handler runs once more.
            (false, true) => {
                let cause = format!("was lost while xenplugd was away: {}", missing.join("; "));
                let failure = Failure::new(&header.plugin, &cause);
                let withdrawn = directory
                    .withdraw(&header.identity, Some(&failure.text))
                    .await
                    .with_context(|| format!("{key}: cannot withdraw the connection"))?;
                reconnect = withdrawn == WriteOutcome::Done;
                match reconnect {
                    true => (RecoveredState::Unfinished, None),
                    false => (RecoveredState::Lost, Some(failure)),
                }
            }
            (false, false) => (RecoveredState::Unfinished, None),
        }
    } else if wanted && connected && seen.mode(daemon.mode) == Mode::DriverDomain {
        // The release began although nobody asked for it.
        let cause = "was lost, and xenplugd ended before it could publish that";
        (RecoveredState::Lost, Some(Failure::new(&header.plugin, cause)))
    } else {
        (RecoveredState::Unfinished, None)
    };
    info!(device = %key, plugin = header.plugin, "{key}: adopted from the journal as {state:?}");
    Ok(RecoveredDevice {
        fsm: DeviceFsm::adopted(daemon.mode, header.identity, state),
        adopted: AdoptedDevice { resources, failure },
        reconnect,
    })
}

/// Adopts the resources of a device under the current grants of its plugin. Returns those that are missing, for people.
async fn adopt_resources(
    context: &Arc<DeviceContext>,
    mut resources: DeviceResources,
) -> anyhow::Result<(DeviceResources, Vec<String>)> {
    let owned = Arc::clone(context);
    let adopted = context.daemon.workers.run(move || {
        let plugins = owned.plugins.current();
        let none = Grants::default();
        let plugin = plugins.named(&resources.header().plugin);
        let grants = plugin.map_or(&none, |plugin| plugin.grants());
        let missing = resources.reclaim(HostAccess {
            platform: &owned.daemon.platform,
            grants,
            shared: &owned.shared,
        });
        (resources, missing)
    });
    Ok(adopted.await?)
}
