//! Private network namespace, with mounts of its own for files of the network and the scripts.

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

/// Commands of the holder process before it waits for its end. `/sys` shows the namespace's links, and files that
/// scripts write below `/run` and `/var/log` go with the namespace.
const SET_UP: &str = "mount -t sysfs sysfs /sys && mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /var/log && \
                      mkdir -p /var/log/xen && ip link set lo up && echo ready && exec cat";

/// Network and mount namespace. Its holder process ends when its standard input closes, so nothing is left over even
/// when this program is killed.
#[derive(Debug)]
pub struct Namespace {
    holder: Child,
}

impl Namespace {
    /// Creates a namespace with a loopback interface that is up.
    pub fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--mount", "--propagation", "private", "sh", "-c", SET_UP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare (util-linux)")?;
        let mut line = String::new();
        if let Some(output) = holder.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let namespace = Self { holder };
        ensure!(
            line == "ready\n",
            "a network namespace cannot be created (it takes root, and a host that permits it)"
        );
        Ok(namespace)
    }

    /// Returns a command that runs in the namespace. nsenter executes the program itself, in this program's working
    /// directory.
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

    /// Returns the processes in the network namespace, except the holder, with their names.
    pub fn processes(&self) -> Result<BTreeMap<u32, String>> {
        let network = |process: u32| fs::read_link(format!("/proc/{process}/ns/net"));
        let own = network(self.holder.id())?;
        let numbers = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let inside = numbers.filter(|process| {
            // A process that has ended in between is in no namespace.
            *process != self.holder.id() && network(*process).is_ok_and(|network| network == own)
        });
        let named = inside.map(|process| {
            let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
            (process, name.trim_end().to_owned())
        });
        Ok(named.collect())
    }

    /// Runs `ip` with arguments that are separated by spaces.
    pub fn ip(&self, words: &str) -> Result<()> {
        output(self.command("ip").args(words.split_whitespace())).map(drop)
    }

    /// Returns the output of `ip -j -d` with these arguments.
    pub fn facts(&self, words: &str) -> Result<Value> {
        let text = output(self.command("ip").args(["-j", "-d"]).args(words.split_whitespace()))?;
        Ok(if text.trim().is_empty() {
            Value::Array(Vec::new())
        } else {
            serde_json::from_str(&text)?
        })
    }

    /// Returns the output of `ip -j -d link` for one link, or `None` if there is no link of that name.
    pub fn link(&self, name: &str) -> Result<Option<Value>> {
        let Value::Array(links) = self.facts("link show")? else {
            bail!("`ip -j link` gave no list")
        };
        Ok(links.into_iter().find(|link| link["ifname"] == name))
    }

    /// Returns the names of a bridge's ports.
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

    /// Creates a bridge that is up.
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.ip(&format!("link add {name} type bridge"))?;
        self.ip(&format!("link set {name} up"))
    }

    /// Moves a link into another namespace.
    pub fn give(&self, link: &str, other: &Namespace) -> Result<()> {
        self.ip(&format!("link set {link} netns {}", other.holder.id()))
    }

    /// Calls a function in this network namespace. Sockets that it creates stay in the namespace.
    pub fn within<T: Send>(&self, body: impl FnOnce() -> T + Send) -> Result<T> {
        let network = File::open(format!("/proc/{}/ns/net", self.holder.id()))?;
        thread::scope(|scope| {
            // The thread ends in the namespace; this one stays outside.
            let inside = scope.spawn(move || {
                move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(body())
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Returns a setting of a link in `/proc/sys/net/ipv4/conf`.
    pub fn setting(&self, link: &str, name: &str) -> Result<String> {
        let path = format!("/proc/sys/net/ipv4/conf/{link}/{name}");
        Ok(output(self.command("cat").arg(path))?.trim().to_owned())
    }

    /// Returns the addresses of a link, except link-local ones.
    pub fn addresses(&self, link: &str) -> Result<Vec<String>> {
        let facts = self.facts(&format!("address show dev {link}"))?;
        let all = facts[0]["addr_info"].as_array().into_iter().flatten();
        let ours = all.filter(|one| one["scope"] != "link");
        Ok(ours
            .map(|one| format!("{}/{}", one["local"].as_str().unwrap_or_default(), one["prefixlen"]))
            .collect())
    }

    /// Returns the routes through a link, except the kernel's own, such as `10.0.0.2 src 192.0.2.1 metric 2`.
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

    /// Creates a tap that is down, as QEMU does.
    pub fn tap(&self, name: &str) -> Result<()> {
        self.ip(&format!("tuntap add {name} mode tap"))
    }

    /// Creates a vif and the guest's end of it, as a veth pair.
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

/// Runs a command and returns its standard output. An error contains all of its output.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&done.stdout);
    ensure!(
        done.status.success(),
        "{command:?}: {}\n{text}{}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(text.into_owned())
}
