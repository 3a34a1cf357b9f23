//! Removal of backend directories, and of what is empty above them.

use xenplug_xenstore::{Error, Path, Transaction};

/// Removes a backend's directory, and what is empty above it.
pub(crate) async fn remove(transaction: &Transaction, backend: &Path) -> Result<(), Error> {
    transaction.rm(backend).await?;
    remove_above(transaction, backend).await
}

/// Removes what is empty above a removed backend directory, as far as this domain may, up to and including
/// `backend/<kind>`. Toolstacks create those again when they need them (libxl_internal.c, `libxl__xs_path_cleanup`).
pub(crate) async fn remove_above(transaction: &Transaction, backend: &Path) -> Result<(), Error> {
    let mut above = backend.parent();
    for _ in 0..2 {
        let Some(directory) = above else { break };
        match transaction.directory(&directory).await {
            Ok(children) if children.is_empty() => match transaction.rm(&directory).await {
                Ok(()) => {}
                // In a driver domain that libxl set up, the toolstack owns these.
                Err(error) if error.is_denied() => break,
                Err(error) => return Err(error),
            },
            _ => break,
        }
        above = directory.parent();
    }
    Ok(())
}
