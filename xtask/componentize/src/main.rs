//! `xenplug-componentize WIT MODULE COMPONENT`: makes a component of a core module, and prints its imports.
//!
//! It is a separate program so that `cargo xtask` starts at once: its crates take long to compile, and the workspace
//! shares them with wasmtime.
#![allow(clippy::print_stdout, reason = "xtask reads the imports from standard output")]

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding};
use wit_parser::{Resolve, WorldItem};

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let [wit, module, component] = arguments.as_slice() else {
        bail!("usage: xenplug-componentize WIT MODULE COMPONENT");
    };
    let (wit, module, component) = (Path::new(wit), Path::new(module), Path::new(component));
    let bytes = read(wit, module).with_context(|| format!("read {}", module.display()))?;
    let encoded = ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|mut encoder| encoder.encode())
        .with_context(|| format!("make a component of {}", module.display()))?;
    write(component, &encoded)?;
    println!("{}", imports(&encoded)?.join(", "));
    Ok(())
}

/// Reads a module. A module in WebAssembly text gets the world of plugins, as wit-bindgen adds it for Rust.
fn read(wit: &Path, module: &Path) -> Result<Vec<u8>> {
    if module.extension().is_none_or(|extension| extension != "wat") {
        return Ok(fs::read(module)?);
    }
    let mut bytes = wat::parse_file(module)?;
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit)?;
    let world = resolve.select_world(&[package], Some("plugin"))?;
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)?;
    Ok(bytes)
}

/// Lists a component's imports, which the operator grants. Interfaces of types alone grant nothing.
fn imports(component: &[u8]) -> Result<Vec<String>> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        bail!("not a component");
    };
    let imports = resolve.worlds[world].imports.iter().filter(|(_, item)| match item {
        WorldItem::Interface { id, .. } => !resolve.interfaces[*id].functions.is_empty(),
        WorldItem::Function(_) | WorldItem::Type { .. } => true,
    });
    Ok(imports.map(|(key, _)| resolve.name_world_key(key)).collect())
}

/// Writes a file unless it has these bytes already, so that the daemon's cached copy stays valid.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let folder = path.parent().context("the component's path has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("write {}", path.display()))
}
