//! What stands above and beside the directories of devices.

use xenplug_xenbus::DomId;
use xenplug_xenstore::{Error, Path, Transaction};

use crate::context::DaemonContext;

/// Removes a backend's directory, and what is empty above it.
pub(crate) async fn remove(transaction: &Transaction, backend: &Path) -> Result<(), Error> {
    transaction.rm(backend).await?;
    remove_above(transaction, backend).await
}

/// Removes what is empty above a backend's directory that has gone, as far as this domain may, up to and including
/// `backend/<kind>`: whoever needs that makes it again (libxl_internal.c, `libxl__xs_path_cleanup`).
pub(crate) async fn remove_above(transaction: &Transaction, backend: &Path) -> Result<(), Error> {
    let mut above = backend.parent();
    for _ in 0..2 {
        let Some(directory) = above else { break };
        match transaction.directory(&directory).await {
            Ok(children) if children.is_empty() => match transaction.rm(&directory).await {
                Ok(()) => {}
                // In a driver domain of libxl's these belong to the toolstack.
                Err(error) if error.is_denied() => break,
                Err(error) => return Err(error),
            },
            _ => break,
        }
        above = directory.parent();
    }
    Ok(())
}

/// Whether the toolstack has started a QEMU here for a guest: a device model, or one for its disks (libxl_dm.c, `pidpath`).
pub(crate) async fn has_device_model(host: &DaemonContext, guest: DomId) -> Result<bool, Error> {
    // A driver domain has none but those of xl devd, in whose place this is.
    if host.own != DomId(0) {
        return Ok(false);
    }
    for node in [
        format!("/local/domain/{guest}/image/device-model-pid"),
        format!("/local/domain/0/libxl/{guest}/qdisk-backend-pid"),
    ] {
        match host.client.read(&node.parse()?).await {
            Err(error) if error.is_not_found() => {}
            found => return found.map(|_| true),
        }
    }
    Ok(false)
}

/// Removes what a guest's QEMU wrote about itself (`xenstore_record_dm_state` in QEMU's hw/xen/xen-operations.c; libxl_dm.c,
/// `libxl__destroy_qemu_xenpv_backend`, does the same), unless it is of the toolstack's.
pub(crate) async fn forget_device_model(host: &DaemonContext, guest: DomId) -> Result<(), Error> {
    if has_device_model(host, guest).await? {
        return Ok(());
    }
    let node = format!("/local/domain/{}/device-model/{guest}", host.own);
    match host.client.rm(&node.parse()?).await {
        Err(error) if error.is_not_found() || error.is_denied() => Ok(()),
        done => done,
    }
}
