//! Task `cargo xtask setup`: fetches everything in one go.

use anyhow::Result;

use crate::{roots, terminal, wasm::Toolchain, workspace::Workspace};

/// Sets up everything for building and testing.
pub(crate) fn all(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::set_up(workspace)?;
    terminal::note(&format!("components are built by {}", toolchain.name()));
    roots::set_up(workspace)?;
    roots::set_up_xen(workspace)
}
