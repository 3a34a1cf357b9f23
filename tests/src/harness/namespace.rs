//! A private network namespace, with mounts of its own where the network or the scripts look.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    os::fd::AsFd,
    panic::resume_unwind,
    process::{Child, Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

/// What the holder does before it waits for its end: `/sys` shows the namespace's links, and what scripts write below
/// `/run` and `/var/log` is gone with the namespace.
const SET_UP: &str = "mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && \
                      mkdir -p /var/log/xen && ip link set lo up && echo ready && exec cat";

/// A network and mount namespace. A process holds it that ends when its standard input does, so nothing stays behind,
/// not even when this program is killed.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// A namespace with a loopback interface that is up.
    pub fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", SET_UP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare (util-linux)")?;
        let mut said = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut said)?;
        }
        let namespace = Self { holder };
        ensure!(
            said == "ready\n",
            "a network namespace cannot be made here (it takes root, and a machine that lets it)"
        );
        Ok(namespace)
    }

    /// A command to run in it. The process that starts is the program itself, in this program's
    /// working directory.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--net",
                "--mount",
                "--wd=.",
                "--target",
                &self.holder.id().to_string(),
                "--",
            ])
            .arg(program);
        command
    }

    /// The processes in its network, with their names; but for the holder.
    pub fn processes(&self) -> Result<BTreeMap<u32, String>> {
        let network = |process: u32| fs::read_link(format!("/proc/{process}/ns/net"));
        let own = network(self.holder.id())?;
        let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let inside = numbers.filter(|process| {
            // One that has ended in between is in no network.
            *process != self.holder.id() && network(*process).is_ok_and(|network| network == own)
        });
        let named = inside.map(|process| {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            (process, name.trim_end().to_owned())
        });
        Ok(named.collect())
    }

    /// Runs `ip` with these words.
    pub fn ip(&self, words: &str) -> Result<()> {
        output(self.command("ip").args(words.split_whitespace())).map(drop)
    }

    /// What `ip -j -d` says.
    pub fn facts(&self, words: &str) -> Result<Value> {
        let said = output(self.command("ip").args(["-j", "-d"]).args(words.split_whitespace()))?;
        Ok(if said.trim().is_empty() {
            Value::Array(Vec::new())
        } else {
            serde_json::from_str(&said)?
        })
    }

    /// What `ip -j -d link` says of one link, or `None` if there is none of that name.
    pub fn link(&self, name: &str) -> Result<Option<Value>> {
        let Value::Array(links) = self.facts("link show")? else {
            bail!("`ip -j link` gave no list")
        };
        Ok(links.into_iter().find(|link| link["ifname"] == name))
    }

    /// The names of a bridge's ports.
    pub fn ports(&self, bridge: &str) -> Result<Vec<String>> {
        let Value::Array(links) = self.facts("link show")? else {
            bail!("`ip -j link` gave no list")
        };
        Ok(links
            .iter()
            .filter(|link| link["master"] == bridge)
            .filter_map(|link| Some(link["ifname"].as_str()?.to_owned()))
            .collect())
    }

    /// Makes a bridge that is up.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.ip(&format!("link add {name} type bridge"))?;
        self.ip(&format!("link set {name} up"))
    }

    /// Moves a link from here into another namespace.
    pub fn give(&self, link: &str, other: &Namespace) -> Result<()> {
        self.ip(&format!("link set {link} netns {}", other.holder.id()))
    }

    /// Does something with this network around it: sockets that it makes are in here, also later.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        thread::scope(|scope| {
            // A thread of its own, which ends in the other network.
            let inside = scope.spawn(move || {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(body())
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// A setting of a link's in `/proc/sys/net/ipv4/conf`.
    pub fn setting(&self, link: &str, name: &str) -> Result<String> {
        let path = format!("/proc/sys/net/ipv4/conf/{link}/{name}");
        Ok(output(self.command("cat").arg(path))?.trim().to_owned())
    }

    /// The addresses of a link, IPv6 ones that it gives itself left out.
    pub fn addresses(&self, link: &str) -> Result<Vec<String>> {
        let facts = self.facts(&format!("address show dev {link}"))?;
        let all = facts[0]["addr_info"].as_array().into_iter().flatten();
        let ours = all.filter(|one| one["scope"] != "link");
        Ok(ours
            .map(|one| format!("{}/{}", one["local"].as_str().unwrap_or_default(), one["prefixlen"]))
            .collect())
    }

    /// The routes through a link that were made for it, such as `10.0.0.2 src 192.0.2.1 metric 2`.
    pub fn routes(&self, link: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for family in ["-4", "-6"] {
            let facts = self.facts(&format!("{family} route show dev {link}"))?;
            let ours = facts
                .as_array()
                .into_iter()
                .flatten()
                .filter(|route| route["protocol"] != "kernel");
            for route in ours {
                let mut line = route["dst"].as_str().unwrap_or_default().to_owned();
                for (key, word) in [("prefsrc", "src"), ("metric", "metric")] {
                    if !route[key].is_null() {
                        line += &format!(" {word} {}", route[key].to_string().trim_matches('"'));
                    }
                }
                lines.push(line);
            }
        }
        Ok(lines)
    }

    /// Makes a tap that is down, as QEMU does.
    pub fn tap(&self, name: &str) -> Result<()> {
        self.ip(&format!("tuntap add {name} mode tap"))
    }

    /// Makes the pair of a vif and the guest's vif: frames that one sends, the other gets.
    pub fn vif(&self, name: &str, guest: &str) -> Result<()> {
        self.ip(&format!("link add {name} type veth peer name {guest}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Runs a command to its end; its standard output, or an error with all that it said.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&done.stdout);
    ensure!(
        done.status.success(),
        "{command:?}: {}\n{said}{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(said.into_owned())
}
