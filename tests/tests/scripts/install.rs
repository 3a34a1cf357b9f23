//! `xenplug scripts`: installation and removal of shims.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::fixture::{DONE, Fixture, ORIGINAL, disk, program, vif};

/// Files of a directory: inode, mode, time of the last change in nanoseconds, content.
type Files = BTreeMap<String, (u64, u32, i128, String)>;

fn files(folder: &Path) -> Result<Files> {
    fs::read_dir(folder)?
        .map(|entry| {
            let entry = entry?;
            let facts = entry.metadata()?;
            let changed = i128::from(facts.mtime()) * 1_000_000_000 + i128::from(facts.mtime_nsec());
            let name = entry.file_name().to_string_lossy().into_owned();
            Ok((
                name,
                (facts.ino(), facts.mode(), changed, fs::read_to_string(entry.path())?),
            ))
        })
        .collect()
}

/// Runs `xenplug scripts status --json`. Returns the report, and its scripts by name.
fn status(fixture: &Fixture) -> Result<(Value, BTreeMap<String, Value>)> {
    let ended = fixture.scripts("status --json")?;
    ended.expect(0, &[])?;
    let status: Value = serde_json::from_str(&ended.stdout)?;
    let scripts = status["scripts"].as_array().context("no scripts")?;
    let by_name = scripts
        .iter()
        .map(|script| Some((script["name"].as_str()?.to_owned(), script.clone())));
    let by_name = by_name.collect::<Option<_>>().context("a script without a name")?;
    Ok((status, by_name))
}

#[test]
fn status_lists_scripts_that_stay_original() -> Result<()> {
    let fixture = Fixture::new("fail")?;
    for name in ["block", "block-drbd-probe", "remus-netbuf-setup"] {
        fixture.put(name, ORIGINAL, 0o755)?;
    }
    let staying = &status(&fixture)?.0["unreplaced"];
    let names: Vec<_> = staying.as_array().context("no list")?.iter().collect();
    assert_eq!(
        names.iter().map(|one| &one["name"]).collect::<Vec<_>>(),
        ["block-drbd-probe", "remus-netbuf-setup"]
    );
    fixture.scripts("status")?.expect(0, &[])?;
    let report = fixture.scripts("status")?.stdout;
    for line in [
        "block-drbd-probe is not replaced: Remus asks it about a disk's replication",
        "remus-netbuf-setup is not replaced: Remus sets up its network buffer with it",
    ] {
        ensure!(report.lines().any(|found| found == line), "{line:?} is not in {report}");
    }
    ensure!(
        !report.contains("colo-proxy-setup"),
        "the script is not installed: {report}"
    );
    Ok(())
}

#[test]
fn configured_scripts_are_replaced_by_shims_and_restored() -> Result<()> {
    let mut fixture = Fixture::new("fail")?;
    fixture.put("block", ORIGINAL, 0o750)?;
    fixture.put("block-common.sh", "# sourced\n", 0o644)?;
    fixture.put("block-tap", ORIGINAL, 0o755)?;
    let before = files(&fixture.folder())?;
    for (name, state) in [("block", "original"), ("vif-bridge", "missing")] {
        assert_eq!(status(&fixture)?.1[name]["state"], state);
    }

    let ended = fixture.scripts("install")?;
    // No daemon runs yet, which the command reports.
    ended.expect(0, &["xenplugd does not answer"])?;
    ensure!(
        ended.stdout.contains("block: ") && ended.stdout.contains("vif-bridge: "),
        "{ended:?}"
    );
    let installed = files(&fixture.folder())?;
    let names: Vec<&str> = installed.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "block",
            "block-common.sh",
            "block-tap",
            "block.xenplug-original",
            "vif-bridge"
        ]
    );
    assert_eq!(installed["block.xenplug-original"], before["block"]);
    assert_eq!(status(&fixture)?.1["block"]["state"], "shim");

    // The kernel runs the shim, and the saved original works at its new path.
    let (ended, call) = fixture.run_answered(DONE, "block", "add", &disk())?;
    ended.expect(0, &[])?;
    assert_eq!(call["script"], "block");
    let (ended, _) = fixture.run_answered(DONE, "vif-bridge", "online type_if=vif", &vif())?;
    ended.expect(0, &[])?;
    let none = "HTTP/1.0 200 OK\r\n\r\n{\"outcome\":\"not-served\",\"error\":\"not mine\"}";
    let (ended, _) = fixture.run_answered(none, "block", "remove", &disk())?;
    ended.expect(0, &[])?;
    ensure!(fixture.ran()?[0].starts_with("block.xenplug-original remove"));
    fs::remove_file(fixture.script("ran"))?;

    let again = fixture.scripts("install")?;
    ensure!(again.stdout.matches("installed already").count() == 2, "{again:?}");
    assert_eq!(files(&fixture.folder())?, installed);

    fixture.scripts("uninstall")?.expect(0, &[])?;
    assert_eq!(files(&fixture.folder())?, before);
    fixture.scripts("uninstall block vif-bridge")?.expect(0, &[])?;
    assert_eq!(files(&fixture.folder())?, before);
    assert_eq!(fixture.published(&disk())?, (None, None));
    Ok(())
}

#[test]
fn script_from_a_package_upgrade_becomes_the_original() -> Result<()> {
    let fixture = Fixture::new("original")?;
    fixture.put("block", ORIGINAL, 0o755)?;
    fixture.scripts("install block")?;
    // As dpkg does it, with the answer "install the package maintainer's version".
    let next = ORIGINAL.replace("#!/bin/sh", "#!/bin/sh\n# the next version");
    fixture.put("block.dpkg-new", &next, 0o755)?;
    fs::rename(fixture.script("block.dpkg-new"), fixture.script("block"))?;

    assert_eq!(status(&fixture)?.1["block"]["state"], "changed");
    ensure!(
        fixture
            .scripts("status")?
            .stdout
            .contains("install takes it as the original")
    );
    fixture.scripts("install block")?;
    let (_, scripts) = status(&fixture)?;
    assert_eq!(scripts["block"]["state"], "shim");
    let original = fixture.script("block.xenplug-original");
    assert_eq!(scripts["block"]["original"], json!(original));
    assert_eq!(fs::read_to_string(&original)?, next);
    fixture.scripts("uninstall")?.expect(0, &[])?;
    assert_eq!(fs::read_to_string(fixture.script("block"))?, next);
    Ok(())
}

#[test]
fn status_reports_what_a_shim_is_missing() -> Result<()> {
    let fixture = Fixture::new("original")?;
    let (all, _) = status(&fixture)?;
    assert_eq!(
        (&all["shim"]["usable"], &all["daemon"]["answers"], &all["fallback"]),
        (&json!(true), &json!(false), &json!("original"))
    );
    let table = fixture.scripts("status")?;
    for words in ["SCRIPT", "vif-bridge  missing", "does not answer", "the original runs"] {
        ensure!(table.stdout.contains(words), "{words:?} is not in {}", table.stdout);
    }

    let listener = fixture.listen()?;
    let body = json!({
        "version": "0.1.0", "mode": "dom0", "domain": 0, "plugins": [], "devices": [],
        "store": { "endpoint": "/run/xenstored/socket", "connected": true },
    })
    .to_string();
    thread::scope(|scope| {
        let daemon = scope.spawn(|| -> Result<()> {
            let (mut stream, _) = listener.accept()?;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte)?;
                request.push(byte[0]);
            }
            ensure!(request.starts_with(b"GET /status "));
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )?;
            Ok(())
        });
        let all = status(&fixture);
        daemon.join().map_err(|_| anyhow::anyhow!("the daemon panicked"))??;
        let (all, _) = all?;
        assert_eq!(
            (&all["daemon"]["answers"], &all["daemon"]["mode"]),
            (&json!(true), &json!("dom0"))
        );
        anyhow::Ok(())
    })?;

    fixture.configure("mode = 0\n")?;
    fixture.scripts("status")?.expect(0, &["xenplugd.toml:1: "])
}

#[test]
fn installation_that_would_fail_every_attach_is_refused() -> Result<()> {
    let fixture = Fixture::new("fail")?;
    fixture.put("block", ORIGINAL, 0o755)?;
    let before = files(&fixture.folder())?;
    for (words, code, complaint) in [
        ("install block-drbd-probe", 2, "Remus"),
        ("install colo-proxy-setup", 2, "COLO"),
        ("install vif-common.sh", 2, "the other scripts source it"),
        ("install ../block", 2, "without a folder"),
        ("replace", 2, "replace"),
    ] {
        let ended = fixture.scripts(words)?;
        ensure!(
            ended.code == code && ended.stderr.contains(complaint),
            "{words}: {ended:?}"
        );
    }
    let with_program = |shim: &str| -> Result<_> {
        let mut command = Command::new(program("xenplug")?);
        command.args(["scripts", "install", "block", "--shim", shim, "--folder"]);
        command.arg(fixture.folder()).arg("--config").arg(fixture.config());
        Ok(command.output()?)
    };
    let other = fixture.put("xenplug-script", "#!/bin/sh\n", 0o644)?;
    for (shim, complaint) in [
        ("/nowhere/xenplug-script", "is not there"),
        ("xenplug-script", "absolute"),
        ("/a b/xenplug-script", "spaces"),
        ("/bin/true", "not named"),
        (other.to_str().context("text")?, "everybody may run"),
    ] {
        let done = with_program(shim)?;
        let message = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.code() == Some(2) && message.contains(complaint),
            "{shim}: {message}"
        );
    }
    fs::remove_file(other)?;

    fixture.configure("mode = \"driver-domain\"\n[plugin.phy]\nscripts = [\"block\"]\n")?;
    fixture.scripts("install")?.expect(2, &["mode is not \"dom0\""])?;
    fixture.configure("mode = \"dom0\"\n")?;
    fixture.scripts("install")?.expect(2, &["no script is named"])?;
    fixture.configure("mode = \"dom0\"\n[plugin.phy]\nscripts = [\"block-drbd-probe\"]\n")?;
    fixture.scripts("install")?.expect(2, &["Remus"])?;
    fixture.configure("mode = ")?;
    fixture.scripts("install block")?.expect(2, &["xenplugd.toml:1: "])?;
    assert_eq!(files(&fixture.folder())?, before);

    // A fault of one script does not keep the others from being installed.
    fixture.configure("mode = \"dom0\"\n")?;
    fs::create_dir(fixture.script("vif-bridge"))?;
    let ended = fixture.scripts("install block vif-bridge")?;
    ensure!(ended.code == 1 && ended.stderr.contains("is not a file"), "{ended:?}");
    fs::remove_dir(fixture.script("vif-bridge"))?;
    ensure!(ended.stdout.starts_with("block: installed"), "{ended:?}");
    // The removal needs no configuration.
    fs::remove_file(fixture.config())?;
    fixture.scripts("uninstall")?.expect(0, &[])?;
    assert_eq!(files(&fixture.folder())?, before);
    Ok(())
}

#[test]
fn installation_killed_at_any_time_leaves_whole_scripts() -> Result<()> {
    const ROUNDS: u32 = 120;
    let fixture = Fixture::new("fail")?;
    fixture.put("block", ORIGINAL, 0o750)?;
    let before = files(&fixture.folder())?;
    fixture.scripts("install block")?;
    let shim = files(&fixture.folder())?["block"].3.clone();
    ensure!(shim.starts_with(&format!("#!{}\n", program("xenplug-script")?.display())));
    fixture.scripts("uninstall block")?;

    // The duration of one installation, so that the kills fall into it.
    let begin = Instant::now();
    fixture.scripts("install block")?;
    let whole = begin.elapsed();
    fixture.scripts("uninstall block")?;

    let (script_path, is_over) = (fixture.script("block"), AtomicBool::new(false));
    thread::scope(|scope| {
        let watcher = scope.spawn(|| -> Result<u32> {
            let mut reads = 0;
            while !is_over.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&script_path).context("the script does not exist")?;
                ensure!(
                    text == ORIGINAL || text == shim,
                    "the script has other content: {text:?}"
                );
                ensure!(
                    fs::metadata(&script_path)?.permissions().mode() & 0o100 != 0,
                    "it cannot be run"
                );
                reads += 1;
            }
            Ok(reads)
        });
        let rounds = || -> Result<()> {
            for round in 0..ROUNDS {
                for words in ["install block", "uninstall block"] {
                    let mut command = fixture.scripts_command(words)?;
                    let mut process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
                    thread::sleep(whole * round / ROUNDS);
                    process.kill()?;
                    process.wait()?;
                    if round % 3 == 0 {
                        ensure!(fixture.scripts("uninstall block")?.code == 0);
                        ensure!(files(&fixture.folder())? == before, "round {round}, {words}");
                    }
                }
            }
            Ok(())
        };
        let done = rounds();
        is_over.store(true, Ordering::Relaxed);
        let reads = watcher.join().map_err(|_| anyhow::anyhow!("the watcher panicked"))??;
        done?;
        ensure!(reads > ROUNDS, "the watcher read only {reads} times");
        Ok(())
    })?;
    fixture.scripts("uninstall block")?.expect(0, &[])?;
    ensure!(files(&fixture.folder())? == before);
    Ok(())
}
