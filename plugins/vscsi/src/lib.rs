//! Handler for SCSI devices: reports them as connected, as `/etc/xen/scripts/vscsi` does on `add`.
//!
//! The backend, scsiback or a process, finds its devices by itself (linux/drivers/xen/xen-scsiback.c).

use xenplug_sdk::{Connection, Description, Device, Error, Handler};

/// Handler for SCSI devices.
struct Vscsi;

impl Handler for Vscsi {
    fn describe() -> Description {
        Description::new("SCSI devices, which need nothing")
            .kind("vscsi")
            .script("vscsi")
    }

    fn connect(_device: &Device) -> Result<Connection, Error> {
        Ok(Connection::new())
    }
}

xenplug_sdk::export!(Vscsi);
