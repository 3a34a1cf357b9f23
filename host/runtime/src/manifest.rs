//! Imports and exports of a component, read from the built binary, against the grants.

use wasmtime::component::{Component, Linker};
use wasmtime_wasi::p2;

use crate::{
    bindings::xen::hotplug,
    engine::Engine,
    event::Event,
    grants::{Grants, Interface},
    text::clean,
};

/// A component that does not fit.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    /// It imports an interface that the operator has not granted.
    #[error(
        "it imports xen:hotplug/{name}, which is not granted; to grant it add `{line}` to its grant table",
        name = .0.name(), line = .0.configuration()
    )]
    NotGranted(Interface),
    /// It imports an interface that does not exist.
    #[error("it imports {0}, which this xenplugd does not have (it serves xen:hotplug 0.1 and an empty WASI 0.2)")]
    Unknown(String),
    /// It exports no handler.
    #[error("it does not export xen:hotplug/handler@0.1.0, so it is not a handler")]
    NoHandler,
}

/// WASI packages that toolchains import unasked. They are linked, with nothing in them.
const INERT: [&str; 6] = [
    "wasi:cli",
    "wasi:io",
    "wasi:clocks",
    "wasi:filesystem",
    "wasi:random",
    "wasi:sockets",
];

/// Checks a component. Returns the interfaces of `xen:hotplug` that it imports and that must be granted.
pub(crate) fn check(engine: &Engine, component: &Component, grants: &Grants) -> Result<Vec<Interface>, ManifestError> {
    let all = [
        Interface::Block,
        Interface::Network,
        Interface::Firewall,
        Interface::Process,
        Interface::Guest,
    ];
    let ty = component.component_type();
    let mut wanted = Vec::new();
    for (import, _) in ty.imports(engine.wasmtime()) {
        let (package, rest) = import.split_once('/').unwrap_or((import, ""));
        let (interface, version) = rest.split_once('@').unwrap_or((rest, ""));
        if INERT.contains(&package) && version.starts_with("0.2.") {
            continue;
        }
        if package != "xen:hotplug" || !version.starts_with("0.1.") {
            return Err(ManifestError::Unknown(clean(import, 120)));
        }
        match all.into_iter().find(|known| known.name() == interface) {
            Some(known) if grants.has(known) => wanted.push(known),
            Some(known) => return Err(ManifestError::NotGranted(known)),
            None if matches!(interface, "types" | "log" | "config") => {}
            None => return Err(ManifestError::Unknown(clean(import, 120))),
        }
    }
    if !ty
        .exports(engine.wasmtime())
        .any(|(export, _)| export.starts_with("xen:hotplug/handler@0.1."))
    {
        return Err(ManifestError::NoHandler);
    }
    Ok(wanted)
}

/// Makes a linker that holds the granted interfaces, and nothing else: any other import fails to link.
pub(crate) fn linker(engine: &Engine, grants: &Grants) -> wasmtime::Result<Linker<Event>> {
    type Own = wasmtime::component::HasSelf<Event>;
    let mut linker = Linker::new(engine.wasmtime());
    p2::add_to_linker_async(&mut linker)?;
    hotplug::types::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    hotplug::log::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    hotplug::config::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    if grants.has(Interface::Block) {
        hotplug::block::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    }
    if grants.has(Interface::Network) {
        hotplug::network::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    }
    if grants.has(Interface::Firewall) {
        hotplug::firewall::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    }
    if grants.has(Interface::Process) {
        hotplug::process::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    }
    if grants.has(Interface::Guest) {
        hotplug::guest::add_to_linker::<_, Own>(&mut linker, |event| event)?;
    }
    Ok(linker)
}

#[cfg(test)]
mod tests;
