//! The scripts' calls, in dom0: which device each is about, and an answer in time whatever happens.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tracing::{info, warn};
use xenplug_control::script::{Action, Answer, Call};
use xenplug_runtime::clean;
use xenplug_xenbus::{DeviceKey, Mode, Phase, Place, WatchedPath};

use crate::{device::Ask, host::Host, registry::Registry};

/// How long a device may take to become what a script was run for. libxl kills the script after 40 s
/// (tools/libs/light/libxl_internal.h, `LIBXL_HOTPLUG_TIMEOUT`), and what it then says is nobody's error.
pub(crate) const LIMIT: Duration = Duration::from_secs(35);
/// How long to wait for the device's own word of that: its task may be held up in the store.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of the longest error.
const ERROR_MAX: usize = 500;

/// Answers a call, once the device is ready or down, or it is clear that it will not be. Dropped, nobody waits for it
/// any longer.
pub(crate) async fn answer(host: &Host, call: Call) -> Answer {
    let failed = |error: &str| Answer::Failed {
        error: format!("xenplugd: {}", clean(error, ERROR_MAX)),
    };
    if host.mode != Mode::Dom0 {
        return failed("mode is \"driver-domain\", in which no script plugs devices");
    }
    let key = match device(host, &call.backend) {
        Ok(key) => key,
        Err(error) => return failed(&error),
    };
    // What is held is released whatever the configuration says today.
    let holds = host.registry.phase(&key).is_some_and(Phase::holds);
    if host.plugins().find(&key.kind, &call.script).is_none() && !(call.action == Action::Remove && holds) {
        let error = format!("no plugin stands in for \"{}\" of a {}", call.script, key.kind);
        return Answer::NotServed {
            error: format!("xenplugd: {}", clean(&error, ERROR_MAX)),
        };
    }
    let (ask, answered) = Ask::new(call.action);
    let answer = match host.asks.send((key.clone(), ask)) {
        Ok(()) => timeout(LIMIT + GRACE, answered).await,
        Err(_) => return failed("it is ending"),
    };
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => failed("it is ending"),
        Err(_) => failed(&format!("no answer within {} s", (LIMIT + GRACE).as_secs())),
    };
    match &answer {
        Answer::Done => info!(device = %key, script = call.script, action = ?call.action, "answered a script"),
        Answer::Failed { error } | Answer::NotServed { error } => {
            warn!(device = %key, script = call.script, action = ?call.action, error, "answered a script");
        }
    }
    answer
}

/// Passes calls on to their devices, on the thread that these live on.
pub(crate) async fn pass_on(host: Arc<Host>, mut calls: mpsc::UnboundedReceiver<(DeviceKey, Ask)>) {
    while let Some((key, ask)) = calls.recv().await {
        Registry::ask(&host, &key, ask);
    }
}

/// The device that `XENBUS_PATH` names, as libxl and udev write it: a directory of this domain's.
fn device(host: &Host, path: &str) -> Result<DeviceKey, String> {
    match WatchedPath::parse(path, host.own).map_err(|error| error.to_string())? {
        WatchedPath {
            backend,
            place: Place::Device { key, leaf: None },
        } if backend == host.own => Ok(key),
        _ => Err(format!(
            "{path:?} is not the directory of a backend of domain {}",
            host.own
        )),
    }
}
