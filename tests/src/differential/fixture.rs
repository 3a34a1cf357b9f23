//! Fixture of one side of a case: a host of its own, on which the original script or ours does the work.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::SocketAddr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use super::{
    ABSENT, Lab, Step, Trace,
    observed::{self, Names},
};
use crate::harness::{
    Config, Daemon, Device, Disk, Helper, Kind, Namespace, Nodes, Scsi, Switch, Toolstack, Vif, Xenstored, arrives,
    detach_below, handlers, with_vif,
};

/// Address of the iSCSI portal, reserved for documentation (RFC 5737).
const PORTAL: &str = "192.0.2.1";

/// Side of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The script that Xen ships.
    Original,
    /// The shim, with the daemon.
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

/// Host of one side: a store, a namespace without kernel backends, and for ours the daemon. Fields drop in this order.
#[derive(Debug)]
pub struct Fixture<'a> {
    lab: &'a Lab,
    who: Who,
    daemon: Option<Daemon>,
    helpers: Vec<Helper>,
    switch: Option<Switch>,
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
    lines: Vec<String>,
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

impl<'a> Fixture<'a> {
    /// Creates a fresh host.
    pub fn new(lab: &'a Lab, who: Who) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("xenplug-side-").tempdir()?;
        let (images, outside) = (directory.path().join("images"), directory.path().join("outside"));
        fs::create_dir(&images)?;
        fs::create_dir(&outside)?;
        let xenstored = Xenstored::traced(lab.root())?;
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
        let helpers = directory.path().join("helpers");
        let unique = unique(directory.path());
        let names = Names::of(vec![
            (images.display().to_string(), "$D"),
            (outside.display().to_string(), "$O"),
            (helpers.display().to_string(), "$H"),
            (unique, "$N"),
        ]);
        Ok(Self {
            lab,
            who,
            daemon,
            helpers: Vec::new(),
            switch: None,
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
            lines: Vec::new(),
            runs: 0,
        })
    }

    /// Executes a step of a case.
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
                self.lines.push(format!("run {}, {words}: exit {ended}", self.runs));
                self.learn()
            }
            Step::Close(device) => {
                self.write(&format!("{}/online", device.backend()), "0")?;
                self.write(&format!("{}/state", device.backend()), "6")
            }
            Step::Forget(device) => Ok(self.toolstack.forget(&device)?),
            Step::Helper(name) => self.helper(name),
            Step::Switch => self.start_switch(),
            Step::Peer(bridge, addresses) => self.peer(bridge, addresses),
            Step::Send(vif, from, to) => self.send(vif, from, to),
        }
    }

    /// Returns the observable state as lines: nodes, loop devices, network, calls of helpers, results of scripts.
    pub fn observed(&mut self) -> Result<BTreeSet<String>> {
        let mut lines = self.lines.clone();
        self.learn()?;
        lines.extend(Trace::of(&self.xenstored.trace()?).connections());
        observed::nodes(self.toolstack.store(), &self.names, &mut lines)?;
        observed::loops(self.directory.path(), &self.names, &mut lines)?;
        observed::network(&self.namespace, &mut lines)?;
        for helper in &self.helpers {
            observed::calls(helper, &self.names, &mut lines);
        }
        if let Some(switch) = &self.switch {
            observed::ports(switch, &mut lines)?;
        }
        Ok(observed::counted(lines))
    }

    /// Returns errors in the store and the daemon's log, for the message of a failed case.
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

    /// Returns true if another program took the loop device that the original was about to use. The original finds an
    /// unused one and attaches it later, under a lock that other programs do not take.
    pub fn lost_the_race(&mut self) -> bool {
        let account = self.account();
        let complains = account.contains("losetup /dev/loop") || account.contains("losetup -r /dev/loop");
        self.who == Who::Original && complains
    }

    /// Returns the host's namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Returns the number of requests that the store has served.
    pub fn requests(&self) -> Result<usize> {
        Ok(Trace::of(&self.xenstored.trace()?).requests())
    }

    /// Runs the script of a device as libxl does (`get_hotplug_env` in libxl_linux.c), and returns its exit code.
    pub fn run(&mut self, device: &Device, words: &str) -> Result<i32> {
        let mut command = self.script(device, words)?;
        let status = command.status().with_context(|| format!("{command:?}"))?;
        status.code().with_context(|| format!("{command:?}: {status}"))
    }

    /// Returns the command by which libxl runs the script of a device.
    pub fn script(&self, device: &Device, words: &str) -> Result<Command> {
        let name = self.scripts.get(device).context("the device is not there")?;
        let folder = match self.who {
            Who::Original => self.lab.originals(),
            Who::Ours => self.lab.shims(),
        };
        let script = folder.join(name);
        let mut command = self.namespace.command(match self.by_udev && device.is_vif() {
            true => folder.join("vif-setup"),
            false => script.clone(),
        });
        self.xenstored.equip(&mut command);
        self.lab.equip(&mut command);
        command
            .current_dir("/")
            .args(words.split_whitespace())
            .env("XENPLUG_CONFIG", self.directory.path().join("xenplugd.toml"))
            // The originals search this folder first, see `Lab`.
            .env("XENPLUG_HELPERS", self.helper_folder())
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
        if device.is_vif() {
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
            .env("H", self.helper_folder())
            .env("N", unique(self.directory.path()))
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
        let usual = match device.kind {
            Kind::Vbd => Disk::on(&self.images().join("a.img")),
            Kind::Vbd3 => Disk::on(Path::new(&format!("aio:{}/a.img", self.images().display())))
                .with("script", "/etc/xen/scripts/block-tap"),
            Kind::Vscsi => Scsi::of("0:0:0:0"),
            Kind::Vif => Vif::on("xenbr0").with("handle", device.devid.to_string()),
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
        if device.is_vif() && self.namespace.link(&device.link())?.is_none() {
            self.namespace.vif(&device.link(), &device.guest_link())?;
        }
        match device.kind {
            // Tapback waits for the script, and libxl does not wait for tapback (libxl_device.c).
            Kind::Vbd3 => Ok(()),
            _ => self.write(&format!("{}/state", device.backend()), "2"),
        }
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

    /// Installs a fake helper. Before that the host has no program of that name.
    fn helper(&mut self, name: &str) -> Result<()> {
        let folder = self.helper_folder();
        let unique = unique(self.directory.path());
        let made = match name {
            "tap-ctl" => vec![
                Helper::tap_ctl(&folder)?,
                // The original of Xen 4.17 loads the kernel's module.
                Helper::new(&folder, "modprobe", "")?,
            ],
            "iscsiadm" => vec![
                Helper::iscsiadm(&folder, PORTAL, &[&format!("iqn.2026-01.example:{unique}")])?,
                Helper::multipath(&folder, &format!("mpath-{unique}"))?,
            ],
            "nbd-client" => vec![Helper::nbd_client(&folder, 2)?],
            other => bail!("there is no fake {other}"),
        };
        self.helpers.extend(made);
        Ok(())
    }

    /// Starts an Open vSwitch with the bridge `ovsbr0`, and installs its `ovs-vsctl`.
    fn start_switch(&mut self) -> Result<()> {
        let switch = Switch::start(&self.namespace)?;
        switch.bridge("ovsbr0")?;
        let text = format!("exec {:?} \"$@\"", switch.vsctl());
        self.helpers
            .push(Helper::new(&self.helper_folder(), "ovs-vsctl", &text)?);
        self.switch = Some(switch);
        Ok(())
    }

    /// Learns the numbers and devices that have appeared, so that lines show their names instead.
    fn learn(&mut self) -> Result<()> {
        self.names.learn(self.directory.path())?;
        self.helpers.iter().for_each(|helper| self.names.learn_of(helper));
        Ok(())
    }

    fn helper_folder(&self) -> PathBuf {
        self.directory.path().join("helpers")
    }

    fn peer(&mut self, bridge: &str, addresses: &str) -> Result<()> {
        let peer = Namespace::new()?;
        self.namespace.vif("peer", "peer-vif")?;
        self.namespace.ip(&format!("link set peer master {bridge} up"))?;
        self.namespace.give("peer-vif", &peer)?;
        peer.ip("link set peer-vif up")?;
        for address in addresses.split_whitespace() {
            peer.ip(&format!("address add {address} dev peer-vif nodad"))?;
        }
        self.peer = Some(peer);
        Ok(())
    }

    fn send(&mut self, vif: Device, from: &str, to: &str) -> Result<()> {
        if !self.guests.contains_key(&vif) {
            self.guests.insert(vif, with_vif(&self.namespace, &vif)?);
        }
        let (guest, peer) = (&self.guests[&vif], self.peer.as_ref().context("no peer")?);
        let (sender, receiver): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
        let (length, more) = if sender.is_ipv4() { (24, "") } else { (64, "nodad") };
        let link = vif.guest_link();
        guest.ip(&format!("address replace {}/{length} dev {link} {more}", sender.ip()))?;
        let word = if arrives(guest, sender, peer, receiver)? {
            "arrives"
        } else {
            "is dropped"
        };
        self.lines.push(format!("packet from {from} to {to} {word}"));
        Ok(())
    }

    fn images(&self) -> PathBuf {
        self.directory.path().join("images")
    }

    /// Expands directories and bytes in a value.
    fn expanded(&self, value: &str) -> Vec<u8> {
        let (images, outside) = (self.images(), self.directory.path().join("outside"));
        let unique = unique(self.directory.path());
        let meanings: [(&[u8], &[u8]); 4] = [
            (b"$D", images.as_os_str().as_bytes()),
            (b"$N", unique.as_bytes()),
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

/// Returns a word that no other fixture has.
fn unique(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    name.rsplit('-').next().unwrap_or_default().to_lowercase()
}

/// Returns the daemon's configuration, as an operator with such guests would write it. All daemons share one cache.
pub(super) fn config(lab: &Lab, directory: &Path, images: &Path) -> Result<Config> {
    let config = Config::standard(directory, images)?;
    let own_cache = format!("{:?}", directory.join("cache"));
    let helpers = directory.join("helpers");
    Ok(config
        .replacing("\"driver-domain\"", "\"dom0\"")
        .replacing(&own_cache, &format!("{:?}", lab.cache()))
        .replacing(
            "access = \"rw\" }]",
            "access = \"rw\" }, { path = \"/dev\", access = \"rw\" }]",
        )
        .replacing("[\"xenbr*\"]", "[\"xenbr*\", \"eth*\"]")
        .with(handlers::ROUTED)
        .with(handlers::VSCSI)
        .with(&handlers::block_dummy(images))
        .with(&handlers::block_tap(&helpers, images))
        .with(&handlers::block_iscsi(&helpers))
        .with(&handlers::block_nbd(&helpers))
        .with(&handlers::openvswitch(&helpers.join("ovs-vsctl"))))
}
