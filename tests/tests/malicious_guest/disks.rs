//! Disks with misleading content or mode.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{
    cases::Cases,
    harness::{Device, Disk, TestHost},
};

/// Opens the loop device of a guest's disk.
fn open(host: &TestHost, disk: &Device, write: bool) -> Result<File> {
    let node = host.node(disk, "node")?.context("no node")?;
    File::options().read(true).write(write).open(&node).context(node)
}

#[test]
fn image_format_header_is_treated_as_guest_data() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let secret = host.directory().join("secret");
    fs::write(&secret, vec![b'S'; 1 << 20])?;
    // A qcow2 header whose backing file is the secret (XSA-258), and headers of VHD, VMDK and a partition table.
    let backing = secret.display().to_string();
    let mut qcow2 = b"QFI\xfb\0\0\0\x03".to_vec();
    qcow2.extend(104_u64.to_be_bytes());
    qcow2.extend((backing.len() as u32).to_be_bytes());
    qcow2.resize(104, 0);
    qcow2.extend(backing.as_bytes());
    let headers = [
        qcow2,
        b"conectix\0\0\0\x02\0\x01\0\0".to_vec(),
        b"KDMV\x01\0\0\0# Disk DescriptorFile\n".to_vec(),
        [vec![0; 510], vec![0x55, 0xaa]].concat(),
    ];
    let mut cases = Cases::default();
    for (index, header) in headers.into_iter().enumerate() {
        let image = host.image(&format!("forged-{index}.img"), 1)?;
        File::options().write(true).open(&image)?.write_all(&header)?;
        let disk = Device::disk(3, index as u32);
        host.attach(&disk, &Disk::on(&image))?;
        host.expect_connected(&disk)?;
        let mut content = Vec::new();
        open(&host, &disk, false)?.read_to_end(&mut content)?;
        let raw = fs::read(&image)?;
        cases.case(
            &format!("header {index}"),
            (|| {
                ensure!(
                    content == raw && content.starts_with(&header),
                    "the guest does not see the raw bytes"
                );
                Ok(())
            })(),
        );
        host.detach(&disk)?;
    }
    host.end_guest(3, &[])?;
    baseline.assert_same(&host)?;
    cases.end()
}

#[test]
fn read_only_disk_by_any_configuration_rejects_writes() -> Result<()> {
    let mut host = TestHost::new()?;
    let sealed = host.directory().join("sealed");
    fs::create_dir(&sealed)?;
    let config = host.config()?;
    let more = format!("block = [{{ path = {sealed:?}, access = \"ro\" }}, ");
    host.start_daemon(config.replacing("block = [", &more))?;
    let baseline = host.baseline()?;
    let plain = host.image("plain.img", 1)?;
    let locked = host.image("locked.img", 1)?;
    fs::set_permissions(&locked, Permissions::from_mode(0o444))?;
    let granted = sealed.join("granted.img");
    File::create(&granted)?.set_len(1 << 20)?;
    let mut cases = Cases::default();
    // The modes of xl and of the block script: `!` is "w, even if others have it".
    for (what, image, mode, writable) in [
        ("mode r", &plain, "r", Ok(false)),
        ("mode r of a file without write permission", &locked, "r", Ok(false)),
        ("mode w of a file without write permission", &locked, "w", Err("busy")),
        ("mode ! of a file without write permission", &locked, "!", Ok(false)),
        ("mode w! of a file without write permission", &locked, "w!", Err("busy")),
        ("mode r of a path that is granted for reading", &granted, "r", Ok(false)),
        (
            "mode w of a path that is granted for reading",
            &granted,
            "w",
            Err("error"),
        ),
        (
            "mode w! of a path that is granted for reading",
            &granted,
            "w!",
            Err("error"),
        ),
        ("mode w, so that the test can fail", &plain, "w", Ok(true)),
    ] {
        let disk = Device::disk(3, 0);
        host.attach(&disk, &Disk::on(image).with("mode", mode))?;
        let outcome = match writable {
            Err(status) => host.expect_failure(&disk, status, &["phy"]),
            Ok(writable) => host.expect_connected(&disk).and_then(|()| {
                let written = open(&host, &disk, true).and_then(|mut device| {
                    device.write_all(&[7; 4096])?;
                    Ok(device.sync_all()?)
                });
                ensure!(written.is_ok() == writable, "writing ended with {written:?}");
                let first = fs::read(image)?[0];
                ensure!((first == 7) == writable, "the image begins with {first}");
                Ok(())
            }),
        };
        cases.case(what, outcome);
        if writable.is_ok() {
            host.detach(&disk)?;
        } else {
            host.toolstack().forget(&disk)?;
        }
    }
    host.end_guest(3, &[])?;
    baseline.assert_same(&host)?;
    cases.end()
}
