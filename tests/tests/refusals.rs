//! What the daemon refuses: bad configurations with one clear message, bad devices with a `hotplug-error`.

use std::{fs, process::Output};

use anyhow::{Result, ensure};
use xenplug_tests::harness::{Config, Device, Disk, Nodes, TestHost, Vif, attached_below};

/// The daemon ends with this code and says all of these on standard error.
fn assert_refused(output: &Output, code: &[i32], words: &[&str]) -> Result<()> {
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        output.status.code().is_some_and(|found| code.contains(&found)),
        "{}: {said}",
        output.status
    );
    for word in words {
        ensure!(said.contains(word), "{word:?} is not in what it said: {said}");
    }
    Ok(())
}

#[test]
fn invalid_configuration_is_refused_with_file_line_and_cause() -> Result<()> {
    let machine = TestHost::new()?;
    let standard = machine.config()?;
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
        assert_refused(&machine.refused_daemon(&config)?, &[1, 2], words)?;
    }
    Ok(())
}

#[test]
fn invalid_component_is_refused() -> Result<()> {
    let machine = TestHost::new()?;
    for (name, bytes) in [
        ("empty.wasm", b"".as_slice()),
        ("text.wasm", b"(component)"),
        ("core.wasm", b"\0asm\x01\0\0\0"),
    ] {
        let path = machine.directory().join(name);
        fs::write(&path, bytes)?;
        let config = machine.config()?.replacing("\"phy.wasm\"", &format!("{path:?}"));
        assert_refused(&machine.refused_daemon(&config)?, &[1, 2], &[name])?;
    }
    Ok(())
}

#[test]
fn second_daemon_is_refused_and_the_first_goes_on() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    assert_refused(&machine.refused_daemon(&machine.config()?)?, &[1], &["already"])?;
    let disk = machine.attach_disk(3, 0)?;
    machine.expect_connected(&disk)?;
    machine.end_guest(3, &[disk])
}

#[test]
fn missing_store_is_named_in_the_error() -> Result<()> {
    let mut machine = TestHost::new()?;
    machine.stop_kernel();
    machine.xenstored_mut().kill()?;
    let socket = machine.xenstored().socket().display().to_string();
    assert_refused(&machine.refused_daemon(&machine.config()?)?, &[1], &[&socket])
}

#[test]
fn invalid_device_fails_with_plugin_key_and_cause() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let baseline = machine.baseline()?;
    let image = machine.image("good.img", 4)?;
    let outside = machine.directory().join("outside.img");
    fs::write(&outside, vec![0; 4096])?;
    std::os::unix::fs::symlink(&outside, machine.images().join("leads-out.img"))?;
    let disk = || Disk::on(&image);
    let card = || Vif::on("xenbr0");
    let disks: Vec<(Nodes, &str)> = vec![
        (disk().without("params"), "params"),
        (disk().with("params", ""), "params"),
        (disk().with("params", "relative/path"), "params"),
        (disk().with("params", outside.display().to_string()), ""),
        (
            disk().with("params", machine.images().join("leads-out.img").display().to_string()),
            "",
        ),
        (
            disk().with("params", machine.images().join("../outside.img").display().to_string()),
            "",
        ),
        (
            disk().with("params", machine.images().join("absent.img").display().to_string()),
            "",
        ),
        (disk().with("params", machine.images().display().to_string()), ""),
        (disk().with("params", "/dev/null"), ""),
        (disk().with("params", vec![b'/'; 2000]), "params"),
        (disk().with("params", b"/\xff\xfe".to_vec()), "params"),
        (disk().with("params", "/a\n/b"), "params"),
        (disk().with("params", "/a;reboot"), ""),
        (disk().without("mode"), "mode"),
    ];
    let cards: Vec<(Nodes, &str)> = vec![
        (card().with("bridge", "absent0"), "absent0"),
        (card().with("bridge", "lo"), "lo"),
        (card().with("bridge", "a/../b"), "bridge"),
        (card().with("bridge", "x".repeat(300)), "bridge"),
        (card().with("bridge", b"\xff".to_vec()), "bridge"),
        (card().with("vifname", "../../x"), "vifname"),
        (card().with("vifname", "longer-than-fifteen"), "vifname"),
        (card().with("vifname", "lo"), "vifname"),
        (card().with("mtu", "many"), "mtu"),
        (card().with("ip", "10.0.0.300"), "ip"),
    ];
    let disks = disks.into_iter().map(|case| (Device::disk(3, 0), "phy", case));
    let cards = cards.into_iter().map(|case| (Device::card(3, 0), "vif-bridge", case));
    for (device, plugin, (nodes, key)) in disks.chain(cards) {
        machine.attach(&device, &nodes)?;
        machine
            .expect_failure(&device, "error", &[plugin, key])
            .map_err(|error| error.context(format!("{nodes:?}")))?;
        assert_eq!(machine.node(&device, "physical-device")?, None);
        machine.toolstack().forget(&device)?;
    }
    ensure!(
        attached_below(machine.directory())?.is_empty(),
        "a refused disk has a loop device"
    );

    machine.attach(&Device::disk(3, 1), &disk())?;
    machine.expect_connected(&Device::disk(3, 1))?;
    machine.end_guest(3, &[Device::disk(3, 1)])?;
    baseline.assert_same(&machine)
}

#[test]
fn device_with_unserved_script_is_refused_by_name() -> Result<()> {
    let mut machine = TestHost::with_daemon()?;
    let image = machine.image("good.img", 4)?;
    for script in [
        "/etc/xen/scripts/block-drbd",
        "block-tap",
        "",
        "/etc/xen/scripts/../../bin/sh",
        "x\ny",
    ] {
        let disk = Device::disk(3, 0);
        machine.attach(&disk, &Disk::on(&image).with("script", script))?;
        machine.expect_failure(&disk, "error", &["script"])?;
        machine.toolstack().forget(&disk)?;
    }
    Ok(())
}
