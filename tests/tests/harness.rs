//! Tests of the harness: its parts are real, and its played kernel, toolstack and scripts leave nothing behind.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::harness::{
    DebianRoot, Device, Disk, Guest, Namespace, TestHost, Vif, Xenstored, attached_below, build_directory,
};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn domain_is_introduced_and_released_through_the_socket() -> Result<()> {
    let xenstored = Xenstored::start(&DebianRoot::find()?)?;
    let mut store = xenstored.connect()?;
    store.watch("@introduceDomain", "in")?;
    store.watch("@releaseDomain", "out")?;
    while store.event(Duration::from_millis(100))?.is_some() {}

    assert!(!store.is_introduced(7)?);
    store.introduce(7)?;
    assert_eq!(store.event(SOON)?.context("no event")?.token, "in");
    assert!(store.is_introduced(7)?);
    store.release(7)?;
    assert_eq!(store.event(SOON)?.context("no event")?.token, "out");
    assert!(!store.is_introduced(7)?);
    Ok(())
}

#[test]
fn xenstored_notices_a_dead_domain() -> Result<()> {
    let xenstored = Xenstored::start(&DebianRoot::find()?)?;
    let mut store = xenstored.connect()?;
    store.introduce(7)?;
    store.write("/local/domain/7/device", "")?;
    store.watch("@releaseDomain", "out")?;
    store.event(SOON)?;

    xenstored.kill_domain(7)?;
    assert_eq!(store.event(SOON)?.context("no event")?.token, "out");
    assert!(!store.is_introduced(7)?);
    xenstored.revive_domain(7)?;
    store.introduce(7)?;
    assert!(store.is_introduced(7)?);
    Ok(())
}

#[test]
fn killed_xenstored_loses_its_content_and_serves_again() -> Result<()> {
    let mut xenstored = Xenstored::start(&DebianRoot::find()?)?;
    let mut store = xenstored.connect()?;
    store.write("/tool/mark", "here")?;
    xenstored.kill()?;
    assert!(store.read("/tool/mark").is_err());
    xenstored.restart()?;
    let mut store = xenstored.connect()?;
    assert_eq!(store.find("/tool/mark")?, None);
    assert_eq!(store.read("domid")?, "0");
    Ok(())
}

#[test]
fn long_directory_is_listed_whole() -> Result<()> {
    let xenstored = Xenstored::start(&DebianRoot::find()?)?;
    let mut store = xenstored.connect()?;
    let mut names: Vec<String> = (0..2000).map(|number| format!("number-{number}")).collect();
    for name in &names {
        store.make(&format!("/tool/list/{name}"))?;
    }
    let mut found = store.children("/tool/list")?;
    names.sort();
    found.sort();
    assert_eq!(found, names);
    Ok(())
}

#[test]
fn conflicting_transaction_is_retried() -> Result<()> {
    let xenstored = Xenstored::start(&DebianRoot::find()?)?;
    let (mut store, mut other) = (xenstored.connect()?, xenstored.connect()?);
    store.write("/tool/count", "1")?;
    let mut tries = 0;
    store.transaction(|store| {
        tries += 1;
        let count = store.read("/tool/count")?;
        if tries == 1 {
            other.write("/tool/count", "5")?;
        }
        store.write("/tool/count", format!("{count}0"))
    })?;
    assert_eq!((tries, store.read("/tool/count")?.as_str()), (2, "50"));
    Ok(())
}

#[test]
fn debian_tools_work_on_xenstored() -> Result<()> {
    let xenstored = Xenstored::start(&DebianRoot::find()?)?;
    ensure!(
        xenstored
            .tool("xenstore-write")
            .args(["/tool/x", "y"])
            .status()?
            .success(),
        xenstored.log()
    );
    assert_eq!(xenstored.connect()?.read("/tool/x")?, "y");
    Ok(())
}

#[test]
fn namespace_has_its_own_links_and_is_gone_when_dropped() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.bridge("xenbr0")?;
    namespace.vif("vif3.0", "guest3.0")?;
    namespace.ip("link set vif3.0 master xenbr0")?;
    assert_eq!(namespace.ports("xenbr0")?, ["vif3.0"]);
    let links = namespace.command("ls").arg("/sys/class/net").output()?;
    assert!(String::from_utf8(links.stdout)?.contains("vif3.0"));
    let outside = Command::new("ip").args(["link", "show", "vif3.0"]).output()?;
    assert!(!outside.status.success(), "the link is in the host's own namespace");
    Ok(())
}

#[test]
fn original_block_script_attaches_a_file() -> Result<()> {
    let mut host = TestHost::new()?;
    let baseline = host.baseline()?;
    let disk = Device::disk(3, 0);
    let image = host.image("a.img", 4)?;
    host.toolstack().build(3)?;
    host.toolstack().attach(&disk, &Disk::on(&image))?;
    host.expect_state(&disk, "2")?;
    host.scripts().plug(&disk)?;
    host.expect_status(&disk, "connected")?;
    host.expect_state(&disk, "4")?;
    let loops = attached_below(host.directory())?;
    assert_eq!(loops.len(), 1);
    assert_eq!(host.node(&disk, "node")?, Some(loops[0].device.display().to_string()));

    host.toolstack().detach(&disk)?;
    host.expect_state(&disk, "6")?;
    host.scripts().unplug(&disk)?;
    host.toolstack().forget(&disk)?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn original_vif_bridge_script_adds_a_port() -> Result<()> {
    let mut host = TestHost::new()?;
    let baseline = host.baseline()?;
    let vif = Device::vif(3, 0);
    host.toolstack().build(3)?;
    host.toolstack().attach(&vif, &Vif::on("xenbr0"))?;
    host.expect_state(&vif, "2")?;
    host.scripts().plug(&vif)?;
    host.expect_status(&vif, "connected")?;
    host.expect_state(&vif, "4")?;
    assert_eq!(host.namespace().ports("xenbr0")?, [vif.link()]);

    host.toolstack().detach(&vif)?;
    host.expect_state(&vif, "6")?;
    host.scripts().unplug(&vif)?;
    host.toolstack().forget(&vif)?;
    host.toolstack().bury(3)?;
    baseline.assert_same(&host)
}

#[test]
fn floor_program_attaches_a_disk_and_a_vif() -> Result<()> {
    let mut host = TestHost::new()?;
    let baseline = host.baseline()?;
    let floor = Floor::start(&host)?;
    let (disk, vif) = (Device::disk(3, 0), Device::vif(3, 0));
    let image = host.image("a.img", 4)?;
    host.toolstack().build(3)?;
    host.toolstack().attach(&disk, &Disk::on(&image))?;
    host.toolstack().attach(&vif, &Vif::on("xenbr0"))?;
    for device in [&disk, &vif] {
        host.expect_status(device, "connected")?;
        host.expect_state(device, "4")?;
    }
    assert_eq!(attached_below(host.directory())?.len(), 1);
    let link = host.namespace().link(&vif.link())?.context("no link")?;
    assert_eq!(
        (link["master"].as_str(), link["address"].as_str()),
        (Some("xenbr0"), Some("fe:ff:ff:ff:ff:ff"))
    );
    assert!(link["flags"].to_string().contains("\"UP\""));

    for device in [&disk, &vif] {
        host.toolstack().detach(device)?;
        host.expect_state(device, "6")?;
        host.toolstack().forget(device)?;
    }
    host.toolstack().bury(3)?;
    drop(floor);
    baseline.assert_same(&host)
}

#[test]
fn packets_pass_between_guest_and_bridge() -> Result<()> {
    let mut host = TestHost::new()?;
    let _floor = Floor::start(&host)?;
    host.namespace().ip("address add 10.0.0.1/24 dev xenbr0")?;
    host.namespace().ip("address add fd00::1/64 dev xenbr0 nodad")?;
    let vif = host.attach_vif(3, 0)?;
    host.expect_connected(&vif)?;
    let guest = Guest::of(&host, &vif, &["10.0.0.2/24", "10.0.0.9/24", "fd00::2/64"])?;
    for (from, to) in [
        ("10.0.0.2", "10.0.0.1"),
        ("10.0.0.9", "10.0.0.1"),
        ("fd00::2", "fd00::1"),
    ] {
        ensure!(guest.reaches(from, to)?, "from {from} to {to}");
    }
    host.namespace().ip("link set xenbr0 down")?;
    ensure!(!guest.reaches("10.0.0.2", "10.0.0.1")?);
    Ok(())
}

struct Floor(Child);

impl Floor {
    fn start(host: &TestHost) -> Result<Self> {
        let mut floor = host
            .namespace()
            .command(build_directory()?.join("xenplug-floor"))
            .env("XENSTORED_PATH", host.xenstored().socket())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(floor.stdout.take().context("it has an output")?).read_line(&mut line)?;
        assert_eq!(line, "ready\n");
        Ok(Self(floor))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
