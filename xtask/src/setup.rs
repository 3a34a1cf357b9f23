//! Everything that is fetched, in one go.

use anyhow::Result;

use crate::{rig, terminal, wasm::Toolchain, workspace::Workspace};

/// Sets up what building and testing need.
pub(crate) fn all(workspace: &Workspace) -> Result<()> {
    let toolchain = Toolchain::set_up(workspace)?;
    terminal::note(&format!("components are built by {}", toolchain.name()));
    rig::set_up(workspace);
    rig::set_up_xen(workspace);
    Ok(())
}
