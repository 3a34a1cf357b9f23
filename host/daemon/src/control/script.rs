//! The scripts' calls in dom0: finds the device of each call, and answers in time whatever happens.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::timeout};
use tracing::{info, warn};
use xenplug_control::script::{Answer, Call, ScriptAction, is_parameter};
use xenplug_runtime::clean;
use xenplug_xenbus::{DeviceInstance, DeviceKey, Kind, Mode, Phase, VifType, WatchLevel, WatchedPath};

use crate::{
    context::DaemonContext,
    device::{Registry, SCRIPT_LIMIT, ScriptCall},
    plugins::Plugins,
};

/// The additional time for the device's answer: its task may wait for the store.
const GRACE: Duration = Duration::from_secs(2);
/// Bytes of the longest error.
const ERROR_MAX: usize = 500;

/// Calls on their way from the control socket's threads to the thread of the devices' tasks.
pub(crate) type ScriptCalls = mpsc::UnboundedReceiver<(DeviceInstance, ScriptCall)>;

/// The front desk of script calls.
pub(crate) struct ScriptDesk {
    context: Arc<DaemonContext>,
    plugins: Arc<Plugins>,
    registry: Arc<Registry>,
    calls: mpsc::UnboundedSender<(DeviceInstance, ScriptCall)>,
}

/// Passes calls to their devices, on the thread of the devices' tasks.
pub(crate) async fn forward(registry: Arc<Registry>, mut calls: ScriptCalls) {
    while let Some((instance, call)) = calls.recv().await {
        registry.call(&instance, call);
    }
}

impl ScriptDesk {
    pub(crate) fn new(
        context: Arc<DaemonContext>,
        plugins: Arc<Plugins>,
        registry: Arc<Registry>,
    ) -> (Self, ScriptCalls) {
        let (calls, receiver) = mpsc::unbounded_channel();
        let desk = Self {
            context,
            plugins,
            registry,
            calls,
        };
        (desk, receiver)
    }

    /// Answers a call when the device is connected or released, or when that will not happen. Dropping the future cancels
    /// the call.
    pub(crate) async fn answer(&self, call: Call) -> Answer {
        let failed = |error: &str| Answer::Failed {
            error: format!("xenplugd: {}", clean(error, ERROR_MAX)),
        };
        if self.context.mode != Mode::Dom0 {
            return failed("mode is \"driver-domain\", in which scripts set up no devices");
        }
        let instance = match self.instance(&call) {
            Ok(instance) => instance,
            Err(error) => return failed(&error),
        };
        if let Some(name) = call
            .parameters
            .iter()
            .find_map(|(name, value)| (!is_parameter(name, value)).then_some(name))
        {
            return failed(&format!("{name}: is no parameter of a script, or has an invalid value"));
        }
        if let Some(error) = self.not_served(&call, &instance) {
            return Answer::NotServed {
                error: format!("xenplugd: {}", clean(&error, ERROR_MAX)),
            };
        }
        let (pending, answered) = ScriptCall::new(call.action, call.parameters);
        let answer = match self.calls.send((instance.clone(), pending)) {
            Ok(()) => timeout(SCRIPT_LIMIT + GRACE, answered).await,
            Err(_) => return failed("the daemon is ending"),
        };
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => failed("the daemon is ending"),
            Err(_) => failed(&format!("no answer within {} s", (SCRIPT_LIMIT + GRACE).as_secs())),
        };
        match &answer {
            Answer::Done => info!(device = %instance, "{instance}: script {} {:?}: done", call.script, call.action),
            Answer::Failed { error } | Answer::NotServed { error } => {
                warn!(device = %instance, "{instance}: script {} {:?}: {error}", call.script, call.action);
            }
        }
        answer
    }

    /// Returns why a call is for the original script, if it is.
    fn not_served(&self, call: &Call, instance: &DeviceInstance) -> Option<String> {
        let phase = self.registry.phase(instance);
        let removes = call.action == ScriptAction::Remove;
        // What is held is released whatever the configuration says today.
        if removes && phase.is_some_and(Phase::holds) {
            return None;
        }
        let kind = &instance.device.kind;
        if self.plugins.current().find(kind, &call.script).is_none() {
            return Some(format!("no plugin serves \"{}\" of a {kind}", call.script));
        }
        // The store does not say who set up an emulated vif. A link that exists, and for which the daemon did nothing, was set
        // up before the daemon started.
        let link_exists = || {
            instance
                .link()
                .parse()
                .is_ok_and(|name| self.context.platform.network.exists(&name))
        };
        let unknown = matches!(phase, None | Some(Phase::Absent | Phase::Waiting));
        (removes && instance.vif_type == VifType::Emulated && unknown && link_exists())
            .then(|| "the device was set up by somebody else".to_owned())
    }

    /// Finds the device of a call.
    fn instance(&self, call: &Call) -> Result<DeviceInstance, String> {
        let device = self.device(&call.backend)?;
        let vif_type = match call.emulated {
            false => VifType::Paravirtual,
            true if device.kind == Kind::VIF => VifType::Emulated,
            true => return Err(format!("{device} is not a vif, and has no emulated instance")),
        };
        Ok(DeviceInstance { device, vif_type })
    }

    /// Finds the device that `XENBUS_PATH` names, as libxl and udev write it: a backend directory of this domain.
    fn device(&self, path: &str) -> Result<DeviceKey, String> {
        match WatchedPath::parse(path, self.context.own).map_err(|error| error.to_string())? {
            WatchedPath {
                backend,
                level: WatchLevel::Device { key, leaf: None },
            } if backend == self.context.own => Ok(key),
            _ => Err(format!(
                "{path:?} is not the directory of a backend of domain {}",
                self.context.own
            )),
        }
    }
}
