//! Runs the hooks of a vif once its handler has returned, as the original scripts run `vif-post.d/*.hook`
//! (tools/hotplug/Linux/xen-hotplug-common.sh, `call_hooks`), where the operator turned them on.
//!
//! The scripts source a hook, so that it can do and see whatever they can. Here it is a program, and finds those
//! variables of the scripts that hooks are written for in its environment. It also runs when the vif goes: that call is
//! in the journal before the first one is made, and made before anything that the vif holds is released.

use std::time::Instant;

use xenplug_system::{
    Error,
    network::Link,
    process::{Command, Variables, hook},
};
use xenplug_xenbus::{BackendPath, Kind, VifType};

use crate::{
    device::Device,
    event::Context,
    fault::Fault,
    resource::{DeviceResources, Hooks},
    text::{chain, clean},
};

/// Bytes of a failed hook's message.
const MESSAGE: usize = 200;

/// Runs all hooks, one after the other. A hook that fails fails the device.
pub(crate) fn run(context: &Context, device: &Device, resources: &mut DeviceResources) -> Result<(), Fault> {
    let Some(grant) = context.grants.hooks.as_ref().filter(|_| device.key.kind == Kind::VIF) else {
        return Ok(());
    };
    let deadline = Instant::now() + context.limits.deadline;
    let refused = |error: Error| Fault::Refused(chain(&error));
    let hooks = context.platform.process.hooks(grant).map_err(refused)?;
    if hooks.is_empty() {
        return Ok(());
    }
    let variables = variables(context, device, resources).map_err(refused)?;
    let (online, offline) = match device.vif_type {
        VifType::Paravirtual => ("online", "offline"),
        VifType::Emulated => ("add", "remove"),
    };
    let commands = |command: &str| -> Vec<Command> {
        let mut variables = variables.clone();
        variables.insert("command".to_owned(), command.to_owned());
        hooks.iter().map(|program| hook(program, &variables)).collect()
    };
    let (online, offline) = (commands(online), commands(offline));
    match Hooks::acquire(resources, context.access(), grant, &online, offline, deadline) {
        Ok(Ok(())) => Ok(()),
        Ok(Err((name, output))) => Err(Fault::Refused(clean(
            &format!(
                "the hook {name} ended with exit code {}: {}",
                output.code,
                String::from_utf8_lossy(&output.stderr)
            ),
            MESSAGE,
        ))),
        Err(error) => Err(Fault::Refused(chain(&error))),
    }
}

/// The variables of a hook: those that libxl sets for the script (libxl_linux.c, `get_hotplug_env`), and those that the
/// script sets itself (vif-common.sh, vif-bridge, vif-nat).
fn variables(context: &Context, device: &Device, resources: &DeviceResources) -> Result<Variables, Error> {
    let network = &context.platform.network;
    let instance = device.instance();
    let own = match (resources.link(), instance.link().parse()) {
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
    let parameter = |name: &str| device.parameters.get(name).cloned();
    let (type_if, interface) = match device.vif_type {
        VifType::Paravirtual => ("vif", None),
        VifType::Emulated => ("tap", Some(instance.link())),
    };
    let all = [
        ("XENBUS_BASE_PATH", Some("backend".to_owned())),
        ("XENBUS_PATH", Some(path.to_string())),
        ("XENBUS_TYPE", Some(device.key.kind.to_string())),
        ("INTERFACE", interface),
        (
            "bridge",
            name(bridge).or_else(|| node("bridge")).or_else(|| parameter("bridge")),
        ),
        ("dev", name(own)),
        ("dhcp", parameter("dhcp")),
        ("ip", node("ip").or_else(|| parameter("ip"))),
        ("mac", node("mac")),
        ("netdev", parameter("netdev").or_else(|| node("gatewaydev"))),
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
