//! The shim, run as libxl runs scripts: by the kernel, through its `#!` line, on a real xenstored. The test plays the
//! daemon, so that it can answer in ways that are rare with a real one.

mod daemon;
mod fixture;
mod install;

use std::{fs, process::Stdio, time::Instant};

use anyhow::{Result, ensure};
use fixture::{DONE, Fixture, ORIGINAL, accept, disk, program, vif};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// Returns an HTTP answer with this body.
fn answer(body: &str) -> String {
    format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}")
}

#[test]
fn shim_run_by_the_kernel_calls_the_daemon() -> Result<()> {
    let mut fixture = Fixture::new("fail")?;
    for (script, arguments, device, action) in [
        ("block", "add", disk(), "add"),
        ("block", "remove", disk(), "remove"),
        ("vif-bridge", "online type_if=vif", vif(), "add"),
        ("vif-bridge", "offline type_if=vif", vif(), "remove"),
    ] {
        fixture.shim_with_original(script)?;
        let (ended, call) = fixture.run_answered(DONE, script, arguments, &device)?;
        ended.expect(0, &[])?;
        let backend = format!("backend/{}/3/{}", device.kind, device.devid);
        assert_eq!(call, json!({ "script": script, "action": action, "backend": backend }));
    }
    assert_eq!(fixture.ran()?, [""; 0]);
    assert_eq!(fixture.published(&disk())?, (None, None));
    Ok(())
}

#[test]
fn shim_ignores_calls_for_the_other_link_of_a_vif() -> Result<()> {
    let fixture = Fixture::new("fail")?;
    fixture.shim_with_original("vif-bridge")?;
    // No daemon runs.
    for arguments in ["add type_if=vif", "remove type_if=vif", "online type_if=tap"] {
        fixture.run("vif-bridge", arguments, &vif())?.expect(0, &[])?;
    }
    assert_eq!(fixture.ran()?, [""; 0]);
    Ok(())
}

#[test]
fn tap_script_call_leaves_the_vif_status_alone() -> Result<()> {
    let mut fixture = Fixture::new("fail")?;
    fixture.shim_with_original("vif-bridge")?;
    for (arguments, action) in [("add type_if=tap", "add"), ("remove type_if=tap", "remove")] {
        let (ended, call) = fixture.run_answered(DONE, "vif-bridge", arguments, &vif())?;
        ended.expect(0, &[])?;
        assert_eq!(
            call,
            json!({ "script": "vif-bridge", "action": action, "backend": "backend/vif/3/0", "emulated": true })
        );
    }
    // The vif's status does not concern its tap, and must stay.
    fixture.write(&vif(), "hotplug-status", "connected")?;
    drop(fixture.listen()?);
    fixture
        .run("vif-bridge", "add type_if=tap", &vif())?
        .expect(1, &["xenplugd does not answer"])?;
    let (status, error) = fixture.published(&vif())?;
    assert_eq!(status.as_deref(), Some("connected"));
    ensure!(error.is_some_and(|error| error.contains("xenplugd does not answer")));
    assert_eq!(fixture.ran()?, [""; 0]);
    Ok(())
}

#[test]
fn shim_passes_extra_arguments_to_the_daemon() -> Result<()> {
    let fixture = Fixture::new("fail")?;
    fixture.shim_with_original("vif-route")?;
    let listener = fixture.listen()?;
    let mut script = fixture
        .command(&fixture.script("vif-route"), "online type_if=vif bridge=br1", &vif())
        .env("netdev", "eth1")
        .env("bridge", "br0")
        .spawn()?;
    let (mut stream, call) = accept(&listener)?;
    std::io::Write::write_all(&mut stream, DONE.as_bytes())?;
    drop(stream);
    ensure!(script.wait()?.success());
    assert_eq!(call["parameters"], json!({ "bridge": "br1", "netdev": "eth1" }));
    Ok(())
}

#[test]
fn vif_setup_runs_the_named_shim_or_operator_script() -> Result<()> {
    let fixture = Fixture::new("fail")?;
    let setup = fixture.shim("vif-setup")?;
    fixture.shim("vif-route")?;
    fixture.put("vif-own", ORIGINAL, 0o755)?;
    let listener = fixture.listen()?;
    let mut script = fixture
        .command(&setup, "online type_if=vif", &vif())
        .env("script", fixture.script("vif-route"))
        .spawn()?;
    let (mut stream, call) = accept(&listener)?;
    std::io::Write::write_all(&mut stream, DONE.as_bytes())?;
    drop(stream);
    ensure!(script.wait()?.success());
    assert_eq!(call["script"], "vif-route");

    let own = fixture.script("vif-own");
    let done = fixture
        .command(&setup, "online type_if=vif", &vif())
        .env("script", &own)
        .status()?;
    ensure!(done.success());
    let own = own.display().to_string();
    assert_eq!(
        fixture.ran()?,
        [format!(
            "vif-own online type_if=vif script={own} XENBUS_PATH=backend/vif/3/0 vif=vif3.0"
        )]
    );
    // Without a script node the script is vif-bridge, which does not exist here.
    let none = fixture
        .command(&setup, "online", &vif())
        .env_remove("script")
        .output()?;
    assert_eq!(none.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&none.stderr);
    let missing = setup.with_file_name("vif-bridge");
    ensure!(
        errors.contains(&format!("cannot run {}", missing.display())),
        "{errors}"
    );
    Ok(())
}

#[test]
fn shim_reports_the_daemons_error_and_stores_it_if_missing() -> Result<()> {
    let mut fixture = Fixture::new("original")?;
    fixture.shim_with_original("block")?;
    let failed = answer(r#"{"outcome":"failed","error":"phy: params: no such\nfile"}"#);
    for action in ["remove", "add"] {
        let (ended, _) = fixture.run_answered(&failed, "block", action, &disk())?;
        ended.expect(1, &["block", action, "backend/vbd/3/51712: phy: params: no such file"])?;
        let expected = (action == "add").then_some("phy: params: no such file");
        assert_eq!(fixture.published(&disk())?.1.as_deref(), expected);
    }
    for status in ["error", "busy"] {
        fixture.write(&disk(), "hotplug-status", status)?;
        fixture.write(&disk(), "hotplug-error", "the daemon's own words")?;
        let (ended, _) = fixture.run_answered(&failed, "block", "add", &disk())?;
        ended.expect(1, &["no such file"])?;
        let expected = (Some(status.to_owned()), Some("the daemon's own words".to_owned()));
        assert_eq!(fixture.published(&disk())?, expected);
    }
    assert_eq!(fixture.ran()?, [""; 0]);
    Ok(())
}

#[test]
fn attach_without_daemon_fails_at_once_with_its_cause_stored() -> Result<()> {
    let mut fixture = Fixture::new("fail")?;
    fixture.shim_with_original("block")?;
    fixture.shim_with_original("vif-bridge")?;
    // No socket, and a socket that a dead daemon left.
    for refused in [false, true] {
        if refused {
            drop(fixture.listen()?);
        }
        let begin = Instant::now();
        for (script, arguments, device) in [("block", "add", disk()), ("vif-bridge", "online type_if=vif", vif())] {
            fixture.write(&device, "hotplug-status", "")?;
            fixture
                .run(script, arguments, &device)?
                .expect(1, &["xenplugd does not answer", "control.sock"])?;
            let (status, error) = fixture.published(&device)?;
            assert_eq!(status.as_deref(), Some("error"));
            let error = error.unwrap_or_default();
            ensure!(error.starts_with("xenplug-script: xenplugd does not answer"), "{error}");
        }
        ensure!(begin.elapsed().as_secs() < 5, "that is not at once");
    }
    // No program reads the reason of a failed removal.
    fixture.write(&disk(), "hotplug-status", "mine")?;
    fixture
        .run("block", "remove", &disk())?
        .expect(1, &["xenplugd does not answer"])?;
    assert_eq!(fixture.published(&disk())?.0.as_deref(), Some("mine"));
    assert_eq!(fixture.ran()?, [""; 0]);
    Ok(())
}

#[test]
fn shim_error_does_not_recreate_a_removed_directory() -> Result<()> {
    let mut fixture = Fixture::new("fail")?;
    fixture.shim("block")?;
    fixture.toolstack().forget(&disk())?;
    fixture
        .run("block", "add", &disk())?
        .expect(1, &["xenplugd does not answer", "has gone"])?;
    let backend = disk().backend();
    assert_eq!(fixture.toolstack().store().find(&backend)?, None);
    Ok(())
}

#[test]
fn connected_device_stays_connected_without_daemon() -> Result<()> {
    let mut fixture = Fixture::new("fail")?;
    fixture.shim("block")?;
    fixture.write(&disk(), "hotplug-status", "connected")?;
    fixture.run("block", "add", &disk())?.expect(0, &[])?;
    assert_eq!(fixture.published(&disk())?, (Some("connected".into()), None));
    Ok(())
}

#[test]
fn shim_falls_back_to_the_original_when_configured() -> Result<()> {
    let mut fixture = Fixture::new("original")?;
    fixture.shim_with_original("block")?;
    fixture.run("block", "add extra=1", &disk())?.expect(0, &[])?;
    let script = fixture.script("block").display().to_string();
    assert_eq!(
        fixture.ran()?,
        [format!(
            "block.xenplug-original add extra=1 script={script} XENBUS_PATH=backend/vbd/3/51712 vif="
        )]
    );
    // The original replaces the shim, with its exit code.
    let failed = fixture
        .command(&fixture.script("block"), "add", &disk())
        .env("ORIGINAL_EXIT", "7")
        .status()?;
    assert_eq!(failed.code(), Some(7));
    assert_eq!(fixture.published(&disk())?, (None, None));
    // Without a saved original that is an error.
    fixture.shim("block-own")?;
    fixture
        .run("block-own", "add", &disk())?
        .expect(1, &["xenplugd does not answer", "there is no original"])?;
    assert_eq!(fixture.published(&disk())?.0.as_deref(), Some("error"));
    Ok(())
}

#[test]
fn broken_daemon_connection_does_not_fall_back() -> Result<()> {
    for answer in ["", "HTTP/1.0 200 OK\r\n\r\n{\"outc", "HTTP/1.0 503 Busy\r\n\r\n"] {
        let mut fixture = Fixture::new("original")?;
        fixture.shim_with_original("block")?;
        let (ended, _) = fixture.run_answered(answer, "block", "add", &disk())?;
        ended.expect(1, &["xenplugd"])?;
        assert_eq!(
            (fixture.published(&disk())?.0.as_deref(), fixture.ran()?),
            (Some("error"), vec![])
        );
    }
    // The daemon may also end right after it has published the result.
    let mut fixture = Fixture::new("fail")?;
    fixture.shim("block")?;
    let listener = fixture.listen()?;
    let mut script = fixture.command(&fixture.script("block"), "add", &disk()).spawn()?;
    let (stream, _) = accept(&listener)?;
    fixture.write(&disk(), "hotplug-status", "connected")?;
    drop(stream);
    ensure!(script.wait()?.success());
    Ok(())
}

#[test]
fn device_of_the_original_is_removed_by_the_original() -> Result<()> {
    let none = answer(r#"{"outcome":"not-served","error":"the original made it ready"}"#);
    let mut fixture = Fixture::new("fail")?;
    fixture.shim_with_original("block")?;
    let (ended, _) = fixture.run_answered(&none, "block", "remove", &disk())?;
    ended.expect(0, &[])?;
    assert_eq!(fixture.ran()?.len(), 1);
    // The operator configures the fallback of an attach.
    let (ended, _) = fixture.run_answered(&none, "block", "add", &disk())?;
    ended.expect(1, &["the original made it ready"])?;
    assert_eq!(
        (fixture.published(&disk())?.0.as_deref(), fixture.ran()?.len()),
        (Some("error"), 1)
    );

    let mut fixture = Fixture::new("original")?;
    fixture.shim_with_original("block")?;
    let (ended, _) = fixture.run_answered(&none, "block", "add", &disk())?;
    ended.expect(0, &[])?;
    assert_eq!((fixture.published(&disk())?, fixture.ran()?.len()), ((None, None), 1));
    Ok(())
}

#[test]
fn killed_shim_closes_its_connection() -> Result<()> {
    let fixture = Fixture::new("fail")?;
    fixture.shim("block")?;
    let listener = fixture.listen()?;
    let mut script = fixture.command(&fixture.script("block"), "add", &disk()).spawn()?;
    let (mut stream, _) = accept(&listener)?;
    let pid = Pid::from_raw(script.id().cast_signed()).expect("a process has an id");
    kill_process(pid, Signal::KILL)?;
    script.wait()?;
    assert_eq!(
        std::io::Read::read(&mut stream, &mut [0; 16])?,
        0,
        "the shim sent more than the call"
    );
    Ok(())
}

#[test]
fn unusable_shim_configuration_is_reported_and_ignored() -> Result<()> {
    let fixture = Fixture::new("original")?;
    fixture.shim_with_original("block")?;
    fixture.configure("[scripts]\nfallback = 7\n")?;
    let ended = fixture.run("block", "add", &disk())?;
    let lines: Vec<&str> = ended.stderr.lines().collect();
    ensure!(ended.code == 1 && lines.len() == 2, "{ended:?}");
    ensure!(
        lines[0].contains("xenplugd.toml:2: ") && lines[0].contains("defaults"),
        "{ended:?}"
    );
    ensure!(lines[1].contains("/run/xenplug/control.sock"), "{ended:?}");
    fs::remove_file(fixture.config())?;
    fixture
        .run("block", "add", &disk())?
        .expect(1, &["/run/xenplug/control.sock"])?;
    assert_eq!(fixture.ran()?, [""; 0]);
    Ok(())
}

#[test]
fn unknown_shim_arguments_are_a_usage_error() -> Result<()> {
    let fixture = Fixture::new("fail")?;
    let script = fixture.shim_with_original("block")?;
    for (arguments, word) in [("", "no action"), ("up", "\"up\""), ("add type_if=x", "\"x\"")] {
        fixture.run("block", arguments, &disk())?.expect(2, &[word])?;
    }
    let mut homeless = fixture.command(&script, "add", &disk());
    let done = homeless.env_remove("XENBUS_PATH").stderr(Stdio::piped()).output()?;
    assert_eq!(done.status.code(), Some(2));
    ensure!(String::from_utf8_lossy(&done.stderr).contains("XENBUS_PATH"));

    let direct = program("xenplug-script")?;
    for (arguments, code, word) in [
        ("--help", 0, "Usage: xenplug-script"),
        ("--version", 0, concat!("xenplug-script ", env!("CARGO_PKG_VERSION"))),
        ("", 2, "not run by itself"),
        ("add", 2, "not run by itself"),
    ] {
        let done = fixture.command(&direct, arguments, &disk()).output()?;
        let output = [done.stdout, done.stderr].concat();
        assert_eq!(done.status.code(), Some(code), "{arguments:?}");
        ensure!(String::from_utf8_lossy(&output).contains(word), "{arguments:?}");
    }
    // A shim that was saved as an original must not run itself for ever.
    fixture.shim("block.xenplug-original")?;
    fixture.configure("[scripts]\nfallback = \"original\"\n[paths]\nrun = \"/nowhere\"\n")?;
    fixture.run("block", "add", &disk())?.expect(2, &["shim itself"])
}
