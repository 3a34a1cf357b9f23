//! The test script's disks, SCSI devices, and faults of the original that are not copied.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use serde_json::json;
use xenplug_tests::rig::{Call, Device, Disk, Machine, attached_below};

use super::machine_with;

#[test]
fn a_dummy_disk_is_a_file_on_a_loop_device() -> Result<()> {
    let mut machine = machine_with(|machine| {
        Ok(format!(
            r#"
[plugin.block-dummy]
component = "block-dummy.wasm"
kinds = ["vbd"]
scripts = ["block-dummy"]
[plugin.block-dummy.grant]
block = [{{ path = {:?}, access = "rw" }}]
loop = true
"#,
            machine.images()
        ))
    })?;
    let baseline = machine.baseline()?;
    let disk = Device::disk(3, 0);
    // A colon and a space in the path: the script stops at the one, and reads words.
    let image = machine.image("a b:c.img", 4)?;
    let on = |params: String| Disk::on(Path::new(&params)).with("script", "/etc/xen/scripts/block-dummy");
    machine.plug(&disk, &on(format!("dummy:{}", image.display())))?.done()?;
    machine.expect_connected(&disk)?;
    let loops = attached_below(machine.directory())?;
    ensure!(
        loops.len() == 1 && loops[0].backing.ends_with("/a b:c.img"),
        "{loops:?}"
    );
    assert_eq!(
        machine.node(&disk, "node")?,
        Some(loops[0].device.display().to_string())
    );
    machine.unplug(&disk)?.done()?;
    for params in [
        image.display().to_string(),
        "dummy:".to_owned(),
        format!("aio:{}", image.display()),
    ] {
        machine
            .plug(&disk, &on(params))?
            .says("failed", &["block-dummy", "params"])?;
        machine.unplug(&disk)?.done()?;
    }
    machine.toolstack().bury(3)?;
    baseline.assert_same(&machine)
}

#[test]
fn a_scsi_device_is_connected_without_more() -> Result<()> {
    let mut machine = machine_with(|_| {
        Ok("\n[plugin.vscsi]\ncomponent = \"vscsi.wasm\"\nkinds = [\"vscsi\"]\nscripts = [\"vscsi\"]\n".to_owned())
    })?;
    machine.toolstack().build(3)?;
    let backend = "/local/domain/0/backend/vscsi/3/0";
    // No `script`: udev names it.
    machine.toolstack().store().transaction(|store| {
        for (name, value) in [("frontend-id", "3"), ("online", "1"), ("state", "2")] {
            store.write(&format!("{backend}/{name}"), value)?;
        }
        Ok(())
    })?;
    let socket = machine.control_socket()?;
    let call = |action: &str| {
        let call = json!({ "script": "vscsi", "action": action, "backend": backend });
        Call::with(&call.to_string(), &socket)?.answer()?.done()
    };
    call("add")?;
    let status =
        |machine: &Machine| Ok::<_, anyhow::Error>(machine.connect()?.find(&format!("{backend}/hotplug-status"))?);
    assert_eq!(status(&machine)?.as_deref(), Some("connected"));
    call("remove")?;
    assert_eq!(status(&machine)?.as_deref(), Some("disconnected"));
    machine.toolstack().store().remove(backend)?;
    machine.toolstack().bury(3)
}

#[test]
fn a_disk_whose_image_is_gone_is_taken_down_where_the_original_leaves_its_loop_device() -> Result<()> {
    let mut machine = Machine::new()?;
    let mut leaked = Vec::new();
    for original in [true, false] {
        if !original {
            let config = machine.config()?.replacing("\"driver-domain\"", "\"dom0\"");
            machine.start_daemon(config)?;
        }
        let disk = Device::disk(3, 0);
        let image = machine.image("gone.img", 4)?;
        machine.attach(&disk, &Disk::on(&image))?;
        machine.expect_state(&disk, "2")?;
        if original {
            machine.scripts().plug(&disk)?;
        } else {
            machine.call(&disk, "add")?.answer()?.done()?;
        }
        machine.expect_connected(&disk)?;
        fs::remove_file(image)?;
        machine.toolstack().detach(&disk)?;
        machine.expect_state(&disk, "6")?;
        if original {
            machine.scripts().unplug(&disk)?;
        } else {
            machine.call(&disk, "remove")?.answer()?.done()?;
        }
        machine.toolstack().forget(&disk)?;
        leaked.push(attached_below(machine.directory())?.len());
        xenplug_tests::rig::detach_below(machine.directory())?;
    }
    assert_eq!(leaked, [1, 0], "loop devices that are left, by the original and by us");
    machine.toolstack().bury(3)
}
