//! Builds the handlers, and makes a component of each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use wit_component::{ComponentEncoder, DecodedWasm, StringEncoding};
use wit_parser::{Resolve, WorldItem};

use crate::{
    terminal,
    wasm::Toolchain,
    workspace::{HANDLERS, Workspace, wasm_packages},
};

/// Builds every component: handlers to `target/plugins/NAME.wasm`, the tests' misbehaving ones to
/// `target/plugins/guests/NAME.wasm`.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::set_up(workspace)?;
    terminal::step("Build the components");
    let mut cargo = toolchain.cargo(workspace);
    cargo.args([
        "build",
        "--profile",
        "plugin",
        "--target",
        "wasm32-unknown-unknown",
        "--lib",
        "--examples",
    ]);
    for package in wasm_packages() {
        cargo.args(["--package", package]);
    }
    terminal::run(&mut cargo)?;

    let modules = toolchain.target(workspace).join("wasm32-unknown-unknown/plugin");
    for name in HANDLERS {
        let module = modules.join(format!("{}.wasm", name.replace('-', "_")));
        let component = encode(&fs::read(&module).with_context(|| format!("read {}", module.display()))?)
            .with_context(|| format!("make a component of {}", module.display()))?;
        let imports = imports(&component)?;
        let written = write(&workspace.plugins().join(format!("{name}.wasm")), &component)?;
        terminal::note(&format!("{} imports {}", written.display(), imports.join(", ")));
    }
    build_guests(workspace, &modules)
}

/// The tests' guests: one for each example of their package that is written in Rust, and for each in WebAssembly text,
/// which does what Rust cannot be made to do.
fn build_guests(workspace: &Workspace, modules: &Path) -> Result<()> {
    let folder = workspace.plugins().join("guests");
    let mut built = 0;
    for source in files(&workspace.root.join("tests/guests/examples"), "rs")? {
        let name = stem(&source);
        let module = modules
            .join("examples")
            .join(format!("{}.wasm", name.replace('-', "_")));
        let module = fs::read(&module).with_context(|| format!("read {}", module.display()))?;
        write(
            &folder.join(format!("{name}.wasm")),
            &encode(&module).with_context(|| format!("guest {name}"))?,
        )?;
        built += 1;
    }
    for source in files(&workspace.root.join("tests/guests/wat"), "wat")? {
        let module = with_world(workspace, wat::parse_file(&source)?)?;
        let name = stem(&source);
        write(
            &folder.join(format!("{name}.wasm")),
            &encode(&module).with_context(|| format!("guest {name}"))?,
        )?;
        built += 1;
    }
    terminal::note(&format!("{} misbehaving guests in {}", built, folder.display()));
    Ok(())
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default().validate(true).module(module)?.encode()
}

/// Adds to a core module what wit-bindgen adds for Rust: the world that it is for.
fn with_world(workspace: &Workspace, mut module: Vec<u8>) -> Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(workspace.root.join("wit"))?;
    let world = resolve.select_world(&[package], Some("plugin"))?;
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(module)
}

/// What a component imports: the manifest that the operator grants. Interfaces of types alone give nothing.
fn imports(component: &[u8]) -> Result<Vec<String>> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(component)? else {
        anyhow::bail!("not a component");
    };
    let imports = resolve.worlds[world].imports.iter().filter(|(_, item)| match item {
        WorldItem::Interface { id, .. } => !resolve.interfaces[*id].functions.is_empty(),
        WorldItem::Function(_) | WorldItem::Type { .. } => true,
    });
    Ok(imports.map(|(key, _)| resolve.name_world_key(key)).collect())
}

/// Writes a file unless it holds these bytes already, so that what was compiled from it stays valid.
fn write(path: &Path, bytes: &[u8]) -> Result<PathBuf> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(path.to_path_buf());
    }
    let folder = path.parent().context("a component goes into a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let partial = path.with_extension("partial");
    fs::write(&partial, bytes).with_context(|| format!("write {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("write {}", path.display()))?;
    Ok(path.to_path_buf())
}

/// The files of a folder that end so, sorted.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
