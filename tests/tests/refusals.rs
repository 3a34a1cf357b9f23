//! Configurations that the daemon refuses with one clear message, and devices that it refuses with a `hotplug-error`.

use std::{fs, process::Output};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Config, Device, Disk, Nodes, TestHost, Vif, attached_below};

/// Checks that the daemon ends with this code and has all of these texts on standard error.
fn assert_refused(output: &Output, code: &[i32], words: &[&str]) -> Result<()> {
    let printed = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        output.status.code().is_some_and(|found| code.contains(&found)),
        "{}: {printed}",
        output.status
    );
    for word in words {
        ensure!(printed.contains(word), "{word:?} is not in: {printed}");
    }
    Ok(())
}

#[test]
fn invalid_configuration_is_refused_with_file_line_and_cause() -> Result<()> {
    let host = TestHost::new()?;
    let standard = host.config()?;
    let file = standard.file().display().to_string();
    let cases: [(Config, &[&str]); 5] = [
        (
            standard.clone().replacing("loop = true", "lopp = true"),
            &[&file, "lopp", "loop"],
        ),
        (
            standard
                .clone()
                .replacing("mode = \"driver-domain\"", "mode = \"domain\""),
            &[&file, "domain"],
        ),
        (standard.clone().replacing("phy.wasm", "absent.wasm"), &["absent.wasm"]),
        (standard.clone().replacing("loop = true", "loop = "), &[&file]),
        (
            standard
                .clone()
                .replacing("bridges = [\"xenbr*\"]\nfirewall = true", ""),
            &["vif-bridge", "network"],
        ),
    ];
    for (config, words) in cases {
        assert_refused(&host.refused_daemon(&config)?, &[1, 2], words)?;
    }
    Ok(())
}

#[test]
fn invalid_component_is_refused() -> Result<()> {
    let host = TestHost::new()?;
    for (name, bytes) in [
        ("empty.wasm", b"".as_slice()),
        ("text.wasm", b"(component)"),
        ("core.wasm", b"\0asm\x01\0\0\0"),
    ] {
        let path = host.directory().join(name);
        fs::write(&path, bytes)?;
        let config = host.config()?.replacing("\"phy.wasm\"", &format!("{path:?}"));
        assert_refused(&host.refused_daemon(&config)?, &[1, 2], &[name])?;
    }
    Ok(())
}

#[test]
fn second_daemon_is_refused_and_the_first_goes_on() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    assert_refused(
        &host.refused_daemon(&host.config()?)?,
        &[1],
        &["in use by another daemon"],
    )?;
    let disk = host.attach_disk(3, 0)?;
    host.expect_connected(&disk)?;
    host.end_guest(3, &[disk])
}

#[test]
fn missing_store_is_named_in_the_error() -> Result<()> {
    let mut host = TestHost::new()?;
    host.stop_kernel();
    host.xenstored_mut().kill()?;
    let socket = host.xenstored().socket().display().to_string();
    assert_refused(&host.refused_daemon(&host.config()?)?, &[1], &[&socket])
}

#[test]
fn invalid_device_fails_with_plugin_key_and_cause() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let baseline = host.baseline()?;
    let image = host.image("good.img", 4)?;
    let outside = host.directory().join("outside.img");
    fs::write(&outside, vec![0; 4096])?;
    std::os::unix::fs::symlink(&outside, host.images().join("leads-out.img"))?;
    let disk = || Disk::on(&image);
    let vif = || Vif::on("xenbr0");
    let disks: Vec<(Nodes, &str)> = vec![
        (disk().without("params"), "params"),
        (disk().with("params", ""), "params"),
        (disk().with("params", "relative/path"), "params"),
        (disk().with("params", outside.display().to_string()), ""),
        (
            disk().with("params", host.images().join("leads-out.img").display().to_string()),
            "",
        ),
        (
            disk().with("params", host.images().join("../outside.img").display().to_string()),
            "",
        ),
        (
            disk().with("params", host.images().join("absent.img").display().to_string()),
            "",
        ),
        (disk().with("params", host.images().display().to_string()), ""),
        (disk().with("params", "/dev/null"), ""),
        (disk().with("params", vec![b'/'; 2000]), "params"),
        (disk().with("params", b"/\xff\xfe".to_vec()), "params"),
        (disk().with("params", "/a\n/b"), "params"),
        (disk().with("params", "/a;reboot"), ""),
        (disk().without("mode"), "mode"),
    ];
    let vifs: Vec<(Nodes, &str)> = vec![
        (vif().with("bridge", "absent0"), "absent0"),
        (vif().with("bridge", "lo"), "lo"),
        (vif().with("bridge", "a/../b"), "bridge"),
        (vif().with("bridge", "x".repeat(300)), "bridge"),
        (vif().with("bridge", b"\xff".to_vec()), "bridge"),
        (vif().with("vifname", "../../x"), "vifname"),
        (vif().with("vifname", "longer-than-fifteen"), "vifname"),
        (vif().with("vifname", "lo"), "vifname"),
        (vif().with("mtu", "many"), "mtu"),
        (vif().with("ip", "10.0.0.300"), "ip"),
    ];
    let disks = disks.into_iter().map(|case| (Device::disk(3, 0), "phy", case));
    let vifs = vifs.into_iter().map(|case| (Device::vif(3, 0), "vif-bridge", case));
    for (device, plugin, (nodes, key)) in disks.chain(vifs) {
        host.attach(&device, &nodes)?;
        host.expect_failure(&device, "error", &[plugin, key])
            .map_err(|error| error.context(format!("{nodes:?}")))?;
        assert_eq!(host.node(&device, "physical-device")?, None);
        host.toolstack().forget(&device)?;
    }
    ensure!(
        attached_below(host.directory())?.is_empty(),
        "a refused disk has a loop device"
    );

    host.attach(&Device::disk(3, 1), &disk())?;
    host.expect_connected(&Device::disk(3, 1))?;
    host.end_guest(3, &[Device::disk(3, 1)])?;
    baseline.assert_same(&host)
}

#[test]
fn device_with_unserved_script_is_refused_by_name() -> Result<()> {
    let mut host = TestHost::with_daemon()?;
    let image = host.image("good.img", 4)?;
    for script in [
        "/etc/xen/scripts/block-drbd",
        "block-tap",
        "",
        "/etc/xen/scripts/../../bin/sh",
        "x\ny",
    ] {
        let disk = Device::disk(3, 0);
        host.attach(&disk, &Disk::on(&image).with("script", script))?;
        host.expect_failure(&disk, "error", &["script"])?;
        host.toolstack().forget(&disk)?;
    }
    Ok(())
}
