//! Hooks of `vif-post.d`, if the operator enables them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use xenplug_tests::harness::{Device, TestHost, Vif};

/// Hook that records its call.
const HOOK: &str = "#!/bin/sh
echo \"$(basename \"$0\" .hook) $command $type_if dev=$dev bridge=$bridge ip=$ip vif=$vif $INTERFACE $XENBUS_PATH $script\" >> \
\"$(dirname \"$0\")/ran\"
";

/// dom0 whose plugin `vif-bridge` runs the hooks of a directory.
struct Hooked {
    host: TestHost,
    folder: PathBuf,
}

impl Hooked {
    fn new() -> Result<Self> {
        let mut host = TestHost::new()?;
        let folder = host.directory().join("vif-post.d");
        fs::create_dir(&folder)?;
        let config = host
            .config()?
            .replacing("\"driver-domain\"", "\"dom0\"")
            .with(&format!("hooks = {folder:?}\n"));
        host.start_daemon(config)?;
        Ok(Self { host, folder })
    }

    /// Writes a hook by another program, see `Fixture::put` of the shim's tests.
    fn put(&self, name: &str, text: &str, mode: &str) -> Result<()> {
        let mut install = Command::new("install")
            .arg(format!("--mode={mode}"))
            .arg("/dev/stdin")
            .arg(self.folder.join(name))
            .stdin(Stdio::piped())
            .spawn()?;
        std::io::Write::write_all(&mut install.stdin.take().context("it has an input")?, text.as_bytes())?;
        ensure!(install.wait()?.success());
        Ok(())
    }

    /// Returns the calls of hooks since the last call, without the part that all lines share.
    fn ran(&self) -> Result<Vec<String>> {
        let ran = self.folder.join("ran");
        let text = if Path::new(&ran).exists() {
            fs::read_to_string(&ran)?
        } else {
            String::new()
        };
        let _ = fs::remove_file(ran);
        let tail = " /local/domain/0/backend/vif/3/0 /etc/xen/scripts/vif-bridge";
        let short = |line: &str| line.strip_suffix(tail).map(str::to_owned);
        text.lines()
            .map(|line| short(line).with_context(|| line.to_owned()))
            .collect()
    }
}

#[test]
fn vif_hooks_run_on_attach_and_detach_with_script_variables() -> Result<()> {
    let mut hooked = Hooked::new()?;
    let baseline = hooked.host.baseline()?;
    hooked.put("20-b.hook", HOOK, "755")?;
    hooked.put("10-a.hook", HOOK, "755")?;
    hooked.put("30-not-executable.hook", HOOK, "644")?;
    hooked.put("40-another.sh", HOOK, "755")?;
    let vif = Device::vif(3, 0);
    // The hook gets values as text, which no shell interprets.
    let nodes = Vif::on("xenbr0").with("vifname", "w$(id)").with("ip", "10.0.0.2");
    hooked.host.plug(&vif, &nodes)?.done()?;
    assert_eq!(
        hooked.ran()?,
        [
            "10-a online vif dev=w$(id) bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 ",
            "20-b online vif dev=w$(id) bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 "
        ]
    );
    hooked.host.namespace().tap("vif3.0-emu")?;
    let tap = |host: &TestHost, action: &str| {
        let call = host.call_of("vif-bridge", &vif, action, json!({ "emulated": true }))?;
        call.answer()?.done()
    };
    tap(&hooked.host, "add")?;
    tap(&hooked.host, "remove")?;
    assert_eq!(
        hooked.ran()?,
        [
            "10-a add tap dev=w$(id)-emu bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 vif3.0-emu",
            "20-b add tap dev=w$(id)-emu bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 vif3.0-emu",
            "10-a remove tap dev=w$(id)-emu bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 vif3.0-emu",
            "20-b remove tap dev=w$(id)-emu bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 vif3.0-emu"
        ]
    );
    hooked.host.namespace().ip("link delete vif3.0-emu")?;
    // After a kill, the daemon's journal has the hooks to run.
    hooked.host.daemon_mut()?.kill()?;
    hooked.host.daemon_mut()?.restart()?;
    hooked.host.end_guest_of_dom0(3, &[vif])?;
    assert_eq!(
        hooked.ran()?,
        [
            "10-a offline vif dev=w$(id) bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 ",
            "20-b offline vif dev=w$(id) bridge=xenbr0 ip=10.0.0.2 vif=vif3.0 "
        ]
    );
    baseline.assert_same(&hooked.host)
}

#[test]
fn failing_hook_fails_attach_but_does_not_block_detach() -> Result<()> {
    let mut hooked = Hooked::new()?;
    let baseline = hooked.host.baseline()?;
    let vif = Device::vif(3, 0);
    for (text, words) in [
        (
            "#!/bin/sh\necho no such address >&2\nexit 3\n",
            ["10-bad.hook", "exit code 3: no such address"],
        ),
        ("#!/nowhere/sh\n", ["10-bad.hook", "exit code 127"]),
    ] {
        hooked.put("10-bad.hook", text, "755")?;
        let answer = hooked.host.plug(&vif, &Vif::on("xenbr0"))?;
        answer.says("failed", &["vif-bridge"])?;
        answer.says("failed", &words)?;
        assert_eq!(hooked.host.namespace().ports("xenbr0")?, [""; 0]);
        hooked.host.unplug(&vif)?.done()?;
    }
    hooked.put("10-bad.hook", "#!/bin/sh\n[ $command = online ]\n", "755")?;
    hooked.host.plug(&vif, &Vif::on("xenbr0"))?.done()?;
    // The same for a hook that was removed.
    hooked.put("20-gone.hook", HOOK, "755")?;
    let other = Device::vif(3, 1);
    hooked.host.plug(&other, &Vif::on("xenbr0"))?.done()?;
    fs::remove_file(hooked.folder.join("20-gone.hook"))?;
    hooked.host.end_guest_of_dom0(3, &[vif, other])?;
    baseline.assert_same(&hooked.host)
}

#[test]
fn disabled_hooks_are_not_run() -> Result<()> {
    let mut host = TestHost::dom0()?;
    let vif = host.plug_vif(3, 0)?;
    let status = host.daemon().context("no daemon")?.status()?;
    ensure!(!status["devices"][0]["held"].to_string().contains("hook"), "{status}");
    host.unplug(&vif)?.done()
}
