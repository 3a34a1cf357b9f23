//! One side of a case: a machine of its own, on which the original script or ours does the work.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{
    ABSENT, Lab, Step, Trace,
    observed::{self, Names},
};
use crate::rig::{
    Config, Daemon, Device, Disk, Namespace, Nodes, Toolstack, Vif, Xenstored, arrives, detach_below, with_card,
};

/// Whose script it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that Xen ships.
    Original,
    /// The stand-in, with the daemon behind it.
    Ours,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Who::Original => "the original",
            Who::Ours => "ours",
        })
    }
}

/// The machine: a store, a namespace, no kernel's backends, and for ours the daemon. Fields are dropped in this order.
#[derive(Debug)]
pub struct Arena<'a> {
    lab: &'a Lab,
    who: Who,
    daemon: Option<Daemon>,
    toolstack: Toolstack,
    guests: BTreeMap<Device, Namespace>,
    peer: Option<Namespace>,
    namespace: Namespace,
    xenstored: Xenstored,
    _loops: Sweep,
    directory: TempDir,
    scripts: BTreeMap<Device, String>,
    environment: Vec<(String, String)>,
    by_udev: bool,
    names: Names,
    told: Vec<String>,
    runs: usize,
}

/// Detaches the loop devices on the files of a directory when it is dropped.
#[derive(Debug)]
struct Sweep(PathBuf);

impl Drop for Sweep {
    fn drop(&mut self) {
        let _ = detach_below(&self.0);
    }
}

impl<'a> Arena<'a> {
    /// A fresh one.
    pub fn new(lab: &'a Lab, who: Who) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("xenplug-side-").tempdir()?;
        let (images, outside) = (directory.path().join("images"), directory.path().join("outside"));
        fs::create_dir(&images)?;
        fs::create_dir(&outside)?;
        let xenstored = Xenstored::traced(lab.rig())?;
        let namespace = Namespace::new()?;
        let daemon = match who {
            Who::Original => None,
            Who::Ours => Some(Daemon::start(
                &xenstored.socket(),
                Some(&namespace),
                config(lab, directory.path(), &images)?,
            )?),
        };
        let toolstack = Toolstack::new(xenstored.connect()?);
        let names = Names::of(vec![
            (images.display().to_string(), "$D"),
            (outside.display().to_string(), "$O"),
        ]);
        Ok(Self {
            lab,
            who,
            daemon,
            toolstack,
            guests: BTreeMap::new(),
            peer: None,
            namespace,
            xenstored,
            _loops: Sweep(directory.path().to_owned()),
            directory,
            scripts: BTreeMap::new(),
            environment: Vec::new(),
            by_udev: false,
            names,
            told: Vec::new(),
            runs: 0,
        })
    }

    /// Does one thing of a case.
    pub fn take(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Sh(commands) => self.shell(commands),
            Step::ShForOriginal(commands) if self.who == Who::Original => self.shell(commands),
            Step::ShForOriginal(_) => Ok(()),
            Step::Device(device, nodes) => self.attach(device, nodes),
            Step::Write(device, name, value) => self.write(&format!("{}/{name}", device.backend()), value),
            Step::WriteAt(path, value) => self.write(path, value),
            Step::Environment(words) => {
                let pairs = words.split_whitespace().filter_map(|word| word.split_once('='));
                self.environment
                    .extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
                Ok(())
            }
            Step::ByUdev => {
                self.by_udev = true;
                Ok(())
            }
            Step::Run(device, words, code) => {
                let ended = self.run(&device, words)?;
                ensure!(
                    self.who == Who::Ours || ended == code,
                    "`{words}` of the original ends with {ended} and not {code}"
                );
                self.runs += 1;
                self.told.push(format!("run {}, {words}: exit {ended}", self.runs));
                self.names.learn(self.directory.path())
            }
            Step::Close(device) => {
                self.write(&format!("{}/online", device.backend()), "0")?;
                self.write(&format!("{}/state", device.backend()), "6")
            }
            Step::Forget(device) => Ok(self.toolstack.forget(&device)?),
            Step::Peer(bridge, addresses) => self.peer(bridge, addresses),
            Step::Send(card, from, to) => self.send(card, from, to),
        }
    }

    /// What there is to see.
    pub fn observed(&mut self) -> Result<BTreeSet<String>> {
        let mut lines = self.told.clone();
        self.names.learn(self.directory.path())?;
        lines.extend(Trace::of(&self.xenstored.trace()?).connections());
        observed::nodes(self.toolstack.store(), &self.names, &mut lines)?;
        observed::loops(self.directory.path(), &self.names, &mut lines)?;
        observed::network(&self.namespace, &mut lines)?;
        Ok(observed::counted(lines))
    }

    /// What somebody who looks for a cause wants to know: errors in the store, logs.
    pub fn account(&mut self) -> String {
        let mut text = String::new();
        for device in self.scripts.keys() {
            let path = format!("{}/hotplug-error", device.backend());
            if let Ok(Some(error)) = self.toolstack.store().find(&path) {
                text.push_str(&format!("{}: {error}\n", self.who));
            }
        }
        if let Some(daemon) = &self.daemon {
            text.push_str(&daemon.log());
        }
        text
    }

    /// Whether another program took the loop device that the original was about to use: it looks for an unused one and
    /// attaches it later, under a lock that others do not take.
    pub fn lost_the_race(&mut self) -> bool {
        let account = self.account();
        let complains = account.contains("losetup /dev/loop") || account.contains("losetup -r /dev/loop");
        self.who == Who::Original && complains
    }

    /// Where it all happens.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// How many requests the store has served.
    pub fn requests(&self) -> Result<usize> {
        Ok(Trace::of(&self.xenstored.trace()?).requests())
    }

    /// The script of a device as libxl runs it (`get_hotplug_env` in libxl_linux.c): its exit code.
    pub fn run(&mut self, device: &Device, words: &str) -> Result<i32> {
        let mut command = self.script(device, words)?;
        let status = command.status().with_context(|| format!("{command:?}"))?;
        status.code().with_context(|| format!("{command:?}: {status}"))
    }

    /// The command that libxl runs.
    pub fn script(&self, device: &Device, words: &str) -> Result<Command> {
        let name = self.scripts.get(device).context("the device is not there")?;
        let folder = match self.who {
            Who::Original => self.lab.originals(),
            Who::Ours => self.lab.stand_ins(),
        };
        let script = folder.join(name);
        let mut command = self.namespace.command(match self.by_udev && !device.is_disk() {
            true => folder.join("vif-setup"),
            false => script.clone(),
        });
        self.xenstored.equip(&mut command);
        self.lab.equip(&mut command);
        command
            .current_dir("/")
            .args(words.split_whitespace())
            .env("XENPLUG_CONFIG", self.directory.path().join("xenplugd.toml"))
            .env("script", &script)
            .env("XENBUS_TYPE", device.kind.to_string())
            .env(
                "XENBUS_PATH",
                format!("backend/{}/{}/{}", device.kind, device.frontend, device.devid),
            )
            .env("XENBUS_BASE_PATH", "backend")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !device.is_disk() {
            command.env("netdev", "").env("vif", device.link());
            if words.contains("type_if=tap") {
                command.env("INTERFACE", format!("{}-emu", device.link()));
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    fn shell(&self, commands: &str) -> Result<()> {
        let mut shell = self.namespace.command("bash");
        self.lab.equip(&mut shell);
        let done = shell
            .args(["-euc", commands])
            .env("D", self.images())
            .env("O", self.directory.path().join("outside"))
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            done.status.success(),
            "`{commands}`: {}\n{}",
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(())
    }

    fn attach(&mut self, device: Device, changes: &[(&'static str, &'static str)]) -> Result<()> {
        let usual = if device.is_disk() {
            Disk::on(&self.images().join("a.img"))
        } else {
            Vif::on("xenbr0").with("handle", device.devid.to_string())
        };
        let nodes = changes.iter().fold(usual, |nodes: Nodes, (name, value)| match *value {
            ABSENT => nodes.without(name),
            value => nodes.with(name, self.expanded(value)),
        });
        let script = nodes.value("script").map(String::from_utf8_lossy).unwrap_or_default();
        let name = script.rsplit('/').next().unwrap_or_default();
        self.scripts.insert(device, name.to_owned());
        if !self.toolstack.store().is_introduced(device.frontend)? {
            self.toolstack.build(device.frontend)?;
        }
        self.toolstack.attach(&device, &nodes)?;
        if !device.is_disk() && self.namespace.link(&device.link())?.is_none() {
            self.namespace.vif(&device.link(), &device.guest_link())?;
        }
        self.write(&format!("{}/state", device.backend()), "2")
    }

    fn write(&mut self, path: &str, value: &str) -> Result<()> {
        let value = self.expanded(value);
        let store = self.toolstack.store();
        if value == ABSENT.as_bytes() {
            store.remove(path)?;
        } else {
            store.write(path, value)?;
        }
        Ok(())
    }

    fn peer(&mut self, bridge: &str, addresses: &str) -> Result<()> {
        let peer = Namespace::new()?;
        self.namespace.vif("peer", "peer-card")?;
        self.namespace.ip(&format!("link set peer master {bridge} up"))?;
        self.namespace.give("peer-card", &peer)?;
        peer.ip("link set peer-card up")?;
        for address in addresses.split_whitespace() {
            peer.ip(&format!("address add {address} dev peer-card nodad"))?;
        }
        self.peer = Some(peer);
        Ok(())
    }

    fn send(&mut self, card: Device, from: &str, to: &str) -> Result<()> {
        if !self.guests.contains_key(&card) {
            self.guests.insert(card, with_card(&self.namespace, &card)?);
        }
        let (guest, peer) = (&self.guests[&card], self.peer.as_ref().context("no peer")?);
        let (sender, receiver): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
        let (length, more) = if sender.is_ipv4() { (24, "") } else { (64, "nodad") };
        let link = card.guest_link();
        guest.ip(&format!("address replace {}/{length} dev {link} {more}", sender.ip()))?;
        let word = if arrives(guest, sender, peer, receiver)? {
            "arrives"
        } else {
            "is dropped"
        };
        self.told.push(format!("packet from {from} to {to} {word}"));
        Ok(())
    }

    fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    /// A value with directories and bytes in their places.
    fn expanded(&self, value: &str) -> Vec<u8> {
        let (images, outside) = (self.images(), self.directory.path().join("outside"));
        let meanings: [(&[u8], &[u8]); 3] = [
            (b"$D", images.as_os_str().as_bytes()),
            (b"$O", outside.as_os_str().as_bytes()),
            (b"\\xff", b"\xff"),
        ];
        let mut bytes = Vec::new();
        let mut rest = value.as_bytes();
        while let Some((first, others)) = rest.split_first() {
            let meaning = meanings.iter().find(|(sign, _)| rest.starts_with(sign));
            match meaning {
                Some((sign, meant)) => {
                    bytes.extend_from_slice(meant);
                    rest = &rest[sign.len()..];
                }
                None => {
                    bytes.push(*first);
                    rest = others;
                }
            }
        }
        bytes
    }
}

/// The handlers that the standard configuration does without.
fn more(images: &Path) -> String {
    format!(
        r#"
[plugin.vif-route]
component = "vif-route.wasm"
kinds = ["vif"]
scripts = ["vif-route"]
[plugin.vif-route.grant]
uplinks = ["eth*"]
routes = ["10.0.0.0/8"]
firewall = true

[plugin.vif-nat]
component = "vif-nat.wasm"
kinds = ["vif"]
scripts = ["vif-nat"]
[plugin.vif-nat.grant]
routes = ["10.0.0.0/8"]
firewall = true

[plugin.block-dummy]
component = "block-dummy.wasm"
kinds = ["vbd"]
scripts = ["block-dummy"]
[plugin.block-dummy.grant]
block = [{{ path = {images:?}, access = "rw" }}]
loop = true
"#
    )
}

/// The daemon as an operator sets it up who has these guests, with one cache for all.
pub(super) fn config(lab: &Lab, directory: &Path, images: &Path) -> Result<Config> {
    let config = Config::standard(directory, images)?;
    let own_cache = format!("{:?}", directory.join("cache"));
    Ok(config
        .replacing("\"driver-domain\"", "\"dom0\"")
        .replacing(&own_cache, &format!("{:?}", lab.cache()))
        .replacing(
            "access = \"rw\" }]",
            "access = \"rw\" }, { path = \"/dev\", access = \"rw\" }]",
        )
        .replacing("[\"xenbr*\"]", "[\"xenbr*\", \"eth*\"]")
        .with(&more(images)))
}
