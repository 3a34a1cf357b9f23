//! `examples/hooks/dnsmasq.hook` writes the DHCP entry of a vif, and removes it with the vif.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use xenplug_tests::harness::{Device, TestHost, handlers, install};

use crate::{attach, remove, vif_of};

const HOOK: &str = include_str!("../../../examples/hooks/dnsmasq.hook");

/// dom0 whose plugin `vif-nat` runs the example hook, with a directory of its own for the entries.
struct Hooked {
    host: TestHost,
    entries: PathBuf,
}

impl Hooked {
    fn new() -> Result<Self> {
        let mut host = TestHost::new()?;
        let (hooks, entries) = (host.directory().join("vif-post.d"), host.directory().join("entries"));
        fs::create_dir(&hooks)?;
        fs::create_dir(&entries)?;
        let directory = "\ndirectory=/run/xenplug-dhcp\n";
        ensure!(HOOK.contains(directory), "the example names another folder");
        let text = HOOK.replace(directory, &format!("\ndirectory={}\n", entries.display()));
        install(&hooks.join("dnsmasq.hook"), &text)?;
        let config = host
            .config()?
            .replacing("\"driver-domain\"", "\"dom0\"")
            .with(handlers::ROUTED)
            .with(&format!("hooks = {hooks:?}\n"));
        host.start_daemon(config)?;
        Ok(Self { host, entries })
    }

    /// Returns the names and the texts of all entries.
    fn entries(&self) -> Result<Vec<(String, String)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.entries)? {
            let path = entry?.path();
            let name = path.file_name().context("it has a name")?;
            all.push((name.to_string_lossy().into_owned(), fs::read_to_string(&path)?));
        }
        all.sort();
        Ok(all)
    }

    fn attach(&mut self, vif: &Device, nodes: &[(&'static str, &str)], parameters: Value) -> Result<()> {
        attach(&mut self.host, "vif-nat", vif, &vif_of("vif-nat", nodes), parameters)?.done()
    }
}

#[test]
fn dhcp_entry_comes_and_goes_with_its_vif() -> Result<()> {
    let mut hooked = Hooked::new()?;
    let (first, second) = (Device::vif(3, 0), Device::vif(3, 1));
    hooked.attach(&first, &[("handle", "0")], json!({}))?;
    hooked.attach(
        &second,
        &[("handle", "1"), ("ip", "10.7.0.5/16")],
        json!({ "dhcp": "yes" }),
    )?;
    let entry = |vif: &str, rest: &str| (vif.to_owned(), format!("00:16:3e:01:02:03,{rest}\n"));
    assert_eq!(
        hooked.entries()?,
        [entry("vif3.0", "10.0.3.1,dom3"), entry("vif3.1", "10.7.0.5,dom3-2")]
    );
    remove(&hooked.host, "vif-nat", &second)?;
    assert_eq!(hooked.entries()?, [entry("vif3.0", "10.0.3.1,dom3")]);
    // The journal of a killed daemon has the hook's command.
    hooked.host.daemon_mut()?.kill()?;
    hooked.host.daemon_mut()?.restart()?;
    remove(&hooked.host, "vif-nat", &first)?;
    assert_eq!(hooked.entries()?, []);
    Ok(())
}

#[test]
fn dhcp_entry_is_not_written_if_the_vif_says_no() -> Result<()> {
    let mut hooked = Hooked::new()?;
    hooked.attach(&Device::vif(3, 0), &[], json!({ "dhcp": "no" }))?;
    assert_eq!(hooked.entries()?, []);
    Ok(())
}
