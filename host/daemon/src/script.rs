//! The scripts' calls, in dom0: which device each is about, and an answer in time whatever happens.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tracing::{info, warn};
use xenplug_control::script::{Answer, Call, ScriptAction, is_parameter};
use xenplug_runtime::clean;
use xenplug_xenbus::{DeviceInstance, DeviceKey, Kind, Mode, Phase, VifType, WatchLevel, WatchedPath};

use crate::{context::DaemonContext, device::ScriptCall, registry::Registry};

/// How long a device may take to become what a script was run for. libxl kills the script after 40 s
/// (tools/libs/light/libxl_internal.h, `LIBXL_HOTPLUG_TIMEOUT`), and what it then says is nobody's error.
pub(crate) const LIMIT: Duration = Duration::from_secs(35);
/// How long to wait for the device's own word of that: its task may be held up in the store.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of the longest error.
const ERROR_MAX: usize = 500;

/// Answers a call, once the device is ready or down, or it is clear that it will not be. Dropped, nobody waits for it
/// any longer.
pub(crate) async fn answer(host: &DaemonContext, call: Call) -> Answer {
    let failed = |error: &str| Answer::Failed {
        error: format!("xenplugd: {}", clean(error, ERROR_MAX)),
    };
    if host.mode != Mode::Dom0 {
        return failed("mode is \"driver-domain\", in which no script plugs devices");
    }
    let part = match part(host, &call) {
        Ok(part) => part,
        Err(error) => return failed(&error),
    };
    if let Some(name) = call
        .parameters
        .iter()
        .find_map(|(name, value)| (!is_parameter(name, value)).then_some(name))
    {
        return failed(&format!("{name}: is no parameter, or has a value that cannot be one's"));
    }
    if let Some(error) = none_of_ours(host, &call, &part) {
        return Answer::NotServed {
            error: format!("xenplugd: {}", clean(&error, ERROR_MAX)),
        };
    }
    let (ask, answered) = ScriptCall::new(call.action, call.parameters);
    let answer = match host.calls.send((part.clone(), ask)) {
        Ok(()) => timeout(LIMIT + GRACE, answered).await,
        Err(_) => return failed("it is ending"),
    };
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => failed("it is ending"),
        Err(_) => failed(&format!("no answer within {} s", (LIMIT + GRACE).as_secs())),
    };
    match &answer {
        Answer::Done => info!(device = %part, script = call.script, action = ?call.action, "answered a script"),
        Answer::Failed { error } | Answer::NotServed { error } => {
            warn!(device = %part, script = call.script, action = ?call.action, error, "answered a script");
        }
    }
    answer
}

/// Passes calls on to their devices, on the thread that these live on.
pub(crate) async fn pass_on(
    host: Arc<DaemonContext>,
    mut calls: mpsc::UnboundedReceiver<(DeviceInstance, ScriptCall)>,
) {
    while let Some((part, ask)) = calls.recv().await {
        Registry::ask(&host, &part, ask);
    }
}

/// Why a call is for the original script, if it is.
fn none_of_ours(host: &DaemonContext, call: &Call, part: &DeviceInstance) -> Option<String> {
    let phase = host.registry.phase(part);
    let removes = call.action == ScriptAction::Remove;
    // What is held is released whatever the configuration says today.
    if removes && phase.is_some_and(Phase::holds) {
        return None;
    }
    let kind = &part.device.kind;
    if host.plugins.current().find(kind, &call.script).is_none() {
        return Some(format!("no plugin stands in for \"{}\" of a {kind}", call.script));
    }
    // The store does not say who has plugged a tap. One that is there, and for which nothing was done here, was plugged
    // before the daemon came.
    let there = || part.link().parse().is_ok_and(|name| host.system.network.exists(&name));
    let strange = matches!(phase, None | Some(Phase::Absent | Phase::Waiting));
    (removes && part.vif_type == VifType::Emulated && strange && there())
        .then(|| "somebody else has plugged it".to_owned())
}

/// What a call is about.
fn part(host: &DaemonContext, call: &Call) -> Result<DeviceInstance, String> {
    let device = device(host, &call.backend)?;
    let vif_type = match call.emulated {
        false => VifType::Paravirtual,
        true if device.kind == Kind::VIF => VifType::Emulated,
        true => return Err(format!("{device} is no card, and has no tap")),
    };
    Ok(DeviceInstance { device, vif_type })
}

/// The device that `XENBUS_PATH` names, as libxl and udev write it: a directory of this domain's.
fn device(host: &DaemonContext, path: &str) -> Result<DeviceKey, String> {
    match WatchedPath::parse(path, host.own).map_err(|error| error.to_string())? {
        WatchedPath {
            backend,
            level: WatchLevel::Device { key, leaf: None },
        } if backend == host.own => Ok(key),
        _ => Err(format!(
            "{path:?} is not the directory of a backend of domain {}",
            host.own
        )),
    }
}
