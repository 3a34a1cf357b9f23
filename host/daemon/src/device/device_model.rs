//! The nodes of QEMU processes: those that the toolstack started, and those that a QEMU wrote about itself.

use xenplug_xenbus::DomId;
use xenplug_xenstore::Error;

use crate::context::DaemonContext;

/// Tests whether the toolstack has started a QEMU here for a guest: a device model, or one for its disks (libxl_dm.c,
/// `pidpath`).
pub(crate) async fn has_device_model(context: &DaemonContext, guest: DomId) -> Result<bool, Error> {
    // A driver domain has only those of `xl devd`, which this daemon replaces.
    if context.own != DomId(0) {
        return Ok(false);
    }
    for node in [
        format!("/local/domain/{guest}/image/device-model-pid"),
        format!("/local/domain/0/libxl/{guest}/qdisk-backend-pid"),
    ] {
        match context.store.read(&node.parse()?).await {
            Err(error) if error.is_not_found() => {}
            found => return found.map(|_| true),
        }
    }
    Ok(false)
}

/// Removes what a guest's QEMU wrote about itself, unless the toolstack started that QEMU. QEMU writes the nodes in
/// `xenstore_record_dm_state` (hw/xen/xen-operations.c); libxl removes them in `libxl__destroy_qemu_xenpv_backend`
/// (libxl_dm.c).
pub(crate) async fn forget_device_model(context: &DaemonContext, guest: DomId) -> Result<(), Error> {
    if has_device_model(context, guest).await? {
        return Ok(());
    }
    let node = format!("/local/domain/{}/device-model/{guest}", context.own);
    match context.store.rm(&node.parse()?).await {
        Err(error) if error.is_not_found() || error.is_denied() => Ok(()),
        done => done,
    }
}
