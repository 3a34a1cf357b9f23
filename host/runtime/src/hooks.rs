//! The hooks that are run for a card once its handler is done, as the original scripts run `vif-post.d/*.hook`
//! (tools/hotplug/Linux/xen-hotplug-common.sh, `call_hooks`), where the operator turned them on.
//!
//! The scripts read a hook into themselves, so that it can do and see whatever they can. Here it is a program, and finds
//! the variables of theirs that hooks are written for in its environment. When the card goes it is told as well: that is
//! in the journal before it is told that the card came, and done before anything that the card holds is given back.

use std::time::Instant;

use xenplug_system::{
    Error,
    network::Link,
    process::{Variables, hook},
};
use xenplug_xenbus::{BackendPath, Kind, VifType};

use crate::{Device, DeviceResources, Effect, Fault, ResourceError, clean, event::Context};

/// Bytes of what a hook that fails may say of it.
const SAID: usize = 200;

/// Runs them all, one after the other. One that fails fails the device.
pub(crate) fn run(context: &Context, device: &Device, resources: &mut DeviceResources) -> Result<(), Fault> {
    let Some(grant) = context.grants.hooks.as_ref().filter(|_| device.key.kind == Kind::VIF) else {
        return Ok(());
    };
    let (process, until) = (&context.system.process, Instant::now() + context.limits.deadline);
    let refused = |error: Error| Fault::Refused(error.to_string());
    let hooks = process.hooks(grant).map_err(refused)?;
    if hooks.is_empty() {
        return Ok(());
    }
    let variables = variables(context, device, resources).map_err(refused)?;
    let (come, go) = match device.vif_type {
        VifType::Paravirtual => ("online", "offline"),
        VifType::Emulated => ("add", "remove"),
    };
    let told = |command: &str| {
        let mut variables = variables.clone();
        variables.insert("command".to_owned(), command.to_owned());
        hooks.iter().map(move |program| hook(program, &variables)).collect()
    };
    let tag = resources.own_tag();
    let effect = Effect::Hooks {
        tag: tag.clone(),
        offline: told(go),
    };
    let online: Vec<_> = told(come);
    let ran = resources.acquire(effect.clone(), || {
        for hook in &online {
            let left = until.saturating_duration_since(Instant::now());
            let output = process.run_recorded(grant.process(), hook, &tag, left)?;
            if output.code != 0 {
                return Ok((effect, Err((hook.helper.clone(), output))));
            }
        }
        Ok((effect, Ok(())))
    });
    match ran {
        Ok(Ok(())) => Ok(()),
        Ok(Err((name, output))) => Err(Fault::Refused(clean(
            &format!(
                "the hook {name} ended with exit code {}: {}",
                output.code,
                String::from_utf8_lossy(&output.stderr)
            ),
            SAID,
        ))),
        Err(ResourceError::Platform(error)) => Err(refused(error)),
        Err(error) => Err(Fault::Refused(error.to_string())),
    }
}

/// What is set for a hook: what libxl sets for the script (libxl_linux.c, `get_hotplug_env`), and what the script sets
/// itself (vif-common.sh, vif-bridge, vif-nat).
fn variables(context: &Context, device: &Device, resources: &DeviceResources) -> Result<Variables, Error> {
    let network = &context.system.network;
    let part = device.part();
    let own = match (resources.link(), part.link().parse()) {
        (Some(index), _) => network.link_by_index(index)?,
        (None, Ok(name)) => network.link(&name)?,
        (None, Err(_)) => None,
    };
    let bridge = match own.as_ref().and_then(|link| link.master) {
        Some(index) => network.link_by_index(index)?,
        None => None,
    };
    let name = |link: Option<Link>| link.map(|link| link.name.to_string());
    let path = BackendPath {
        backend: device.backend,
        key: device.key.clone(),
    };
    let node = |name: &str| device.nodes.get(name).cloned();
    let told = |name: &str| device.parameters.get(name).cloned();
    let (type_if, interface) = match device.vif_type {
        VifType::Paravirtual => ("vif", None),
        VifType::Emulated => ("tap", Some(part.link())),
    };
    let all = [
        ("XENBUS_BASE_PATH", Some("backend".to_owned())),
        ("XENBUS_PATH", Some(path.to_string())),
        ("XENBUS_TYPE", Some(device.key.kind.to_string())),
        ("INTERFACE", interface),
        (
            "bridge",
            name(bridge).or_else(|| node("bridge")).or_else(|| told("bridge")),
        ),
        ("dev", name(own)),
        ("dhcp", told("dhcp")),
        ("ip", node("ip").or_else(|| told("ip"))),
        ("mac", node("mac")),
        ("netdev", told("netdev").or_else(|| node("gatewaydev"))),
        ("script", Some(format!("/etc/xen/scripts/{}", device.script))),
        ("type_if", Some(type_if.to_owned())),
        ("vif", Some(format!("vif{}.{}", device.key.frontend, device.key.devid))),
        ("vifname", node("vifname")),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(set.filter(|(_, value)| !value.is_empty()).collect())
}
