//! Components of the plugins and of the tests' misbehaving guests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    progress::{self, Units},
    terminal,
    wasm::Toolchain,
    workspace::{SHIPPED_PLUGINS, Workspace},
};

/// Program that makes components, built with the release binaries.
pub(crate) const COMPONENTIZE: &str = "xenplug-componentize";

/// Package of the tests' misbehaving guests.
const GUESTS: &str = "xenplug-guests";

/// Builds every component: plugins to `target/plugins/NAME.wasm`, the tests' misbehaving guests to
/// `target/plugins/guests/NAME.wasm`. It requires [`COMPONENTIZE`].
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let modules = compile(workspace, SHIPPED_PLUGINS, true)?;
    encode_plugins(workspace, &modules, SHIPPED_PLUGINS)?;
    encode_guests(workspace, &modules)
}

/// Builds the components of these plugins alone.
pub(crate) fn build_plugins(workspace: &Workspace, names: &[&str]) -> Result<()> {
    let modules = compile(workspace, names, false)?;
    encode_plugins(workspace, &modules, names)
}

/// Compiles plugins, and with `guests` the tests' guests, to core modules. Returns the modules' folder.
fn compile(workspace: &Workspace, names: &[&str], guests: bool) -> Result<PathBuf> {
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
    ]);
    for name in names {
        cargo.args(["--package", name]);
    }
    if guests {
        cargo.args(["--examples", "--package", GUESTS]);
    }
    progress::run(&mut cargo, Units::Unknown)?;
    Ok(toolchain.target(workspace).join("wasm32-unknown-unknown/plugin"))
}

fn encode_plugins(workspace: &Workspace, modules: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        let module = modules.join(format!("{}.wasm", name.replace('-', "_")));
        let component = workspace.plugins().join(format!("{name}.wasm"));
        let imports = encode(workspace, &module, &component)?;
        terminal::note(&format!("{} imports {}", component.display(), imports.trim()));
    }
    Ok(())
}

/// Makes a component of each example of the guests' package, and of each guest in WebAssembly text, for behaviour that
/// Rust cannot express.
fn encode_guests(workspace: &Workspace, modules: &Path) -> Result<()> {
    let folder = workspace.plugins().join("guests");
    let mut built = 0;
    for source in files(&workspace.root.join("tests/guests/examples"), "rs")? {
        let name = stem(&source);
        let module = modules
            .join("examples")
            .join(format!("{}.wasm", name.replace('-', "_")));
        encode(workspace, &module, &folder.join(format!("{name}.wasm")))?;
        built += 1;
    }
    for source in files(&workspace.root.join("tests/guests/wat"), "wat")? {
        encode(workspace, &source, &folder.join(format!("{}.wasm", stem(&source))))?;
        built += 1;
    }
    terminal::note(&format!("{} misbehaving guests in {}", built, folder.display()));
    Ok(())
}

/// Makes a component of a module, and returns its imports.
fn encode(workspace: &Workspace, module: &Path, component: &Path) -> Result<String> {
    let mut program = Command::new(workspace.target.join("release").join(COMPONENTIZE));
    terminal::read(program.arg(workspace.root.join("wit")).args([module, component]))
}

/// Lists the files of a folder with this extension, sorted.
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
