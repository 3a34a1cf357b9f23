//! The effects that a handler can have on the machine, and how each is undone.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::warn;
use xenplug_system::{
    Error, Platform,
    block::{LoopDevice, SourceIdentity},
    network::{IfName, LinkChanges, Prefix, Route},
    process::{Command, HelperProcess},
};
use xenplug_xenbus::DeviceInstance;

use crate::{Grants, HelperKey, SharedResources, Sharing};

/// How long what a helper left running has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(3);

/// How long the undoing of a command may take. A call of a script leaves the daemon 35 s.
const UNDOING: Duration = Duration::from_secs(20);

/// An effect, as the journal keeps it: enough to undo it, whether or not it is known to have happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// A claim on a disk.
    Claim {
        /// The disk.
        source: SourceIdentity,
        /// How it is used.
        sharing: Sharing,
    },
    /// A loop device.
    Loop {
        /// The tag it carries in the kernel.
        tag: String,
        /// The device, once it is known.
        device: Option<LoopDevice>,
    },
    /// A change to a link.
    Link {
        /// The interface number.
        index: u32,
        /// Its name before, for people.
        name: IfName,
        /// What puts it back.
        undo: LinkChanges,
    },
    /// An address on a link.
    Address {
        /// The interface number.
        index: u32,
        /// The address.
        address: Prefix,
    },
    /// A route through a link.
    Route {
        /// The interface number.
        index: u32,
        /// The route.
        route: Route,
    },
    /// The kernel answers ARP on a link for others.
    ProxyArp {
        /// The interface number.
        index: u32,
    },
    /// Rules for a link.
    Firewall {
        /// The link's name when the rules were made.
        link: IfName,
    },
    /// A helper that runs.
    Helper {
        /// The tag in its environment.
        tag: String,
        /// The process, once it is known.
        kept: Option<HelperProcess>,
        /// What it does for other devices as well; it ends with the last of them.
        #[serde(default)]
        role: Option<HelperKey>,
    },
    /// Hooks that were told of a card, and are to be told when it goes.
    Hooks {
        /// The tag in their environment.
        tag: String,
        /// What tells them.
        offline: Vec<Command>,
    },
    /// What a helper did, which another undoes: with the last of the devices that hold the same undoing.
    Command {
        /// The tag in the environment of both.
        tag: String,
        /// What undoes it.
        undo: Command,
        /// Its exit codes, besides 0, for nothing left to undo.
        settled: Vec<u32>,
        /// Whether the helper is known to have ended.
        ended: bool,
    },
}

/// What undoing takes: the machine, the authority, and what devices share.
pub(crate) struct Undo<'a> {
    pub(crate) system: &'a Platform,
    pub(crate) authority: &'a Grants,
    pub(crate) shared: &'a SharedResources,
    pub(crate) part: &'a DeviceInstance,
}

impl Undo<'_> {
    /// Ends the helpers with a tag.
    fn end_tagged(&self, tag: &str) -> Result<(), Error> {
        for kept in self.system.process.find(tag)? {
            self.system.process.end(&kept, GRACE)?;
        }
        Ok(())
    }
}

impl Effect {
    /// Undoes it. Undoing what never happened, or twice, is no error.
    pub(crate) fn undo(&self, by: &Undo<'_>) -> Result<(), Error> {
        let not_held = |what: &str| Error::Denied(format!("{what}: the authority to release it is missing"));
        match self {
            Self::Claim { source, .. } => by.shared.claims.release(*source, &by.part.device),
            Self::Loop {
                device: Some(device), ..
            } => by.system.block.detach_loop(device)?,
            Self::Loop { tag, device: None } => {
                for device in by.system.block.find_loops(tag)? {
                    by.system.block.detach_loop(&device)?;
                }
            }
            Self::Link { index, undo, .. } => {
                let grant = by.authority.network.as_ref().ok_or_else(|| not_held("link"))?;
                if by.system.network.link_by_index(*index)?.is_some() {
                    match by.system.network.change(grant, *index, undo) {
                        Err(Error::NotFound(_)) | Ok(()) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
            Self::Address { index, address } => {
                let grant = by.authority.network.as_ref().ok_or_else(|| not_held("address"))?;
                by.system.network.remove_address(grant, *index, *address)?;
            }
            Self::Route { index, route } => {
                let grant = by.authority.network.as_ref().ok_or_else(|| not_held("route"))?;
                by.system.network.remove_route(grant, *index, route)?;
            }
            Self::ProxyArp { index } => {
                let grant = by.authority.network.as_ref().ok_or_else(|| not_held("proxy_arp"))?;
                match by.system.network.set_proxy_arp(grant, *index, false) {
                    Err(Error::NotFound(_)) | Ok(()) => {}
                    Err(error) => return Err(error),
                }
            }
            Self::Firewall { link } => {
                let grant = by.authority.firewall.as_ref().ok_or_else(|| not_held("rules"))?;
                by.system.firewall.lift(grant, link)?;
            }
            Self::Helper { tag, kept, role } => {
                by.shared
                    .helpers
                    .leave(by.system.process.as_ref(), tag, kept.as_ref(), role.as_ref(), by.part)?;
            }
            Self::Hooks { tag, offline } => {
                let grant = by.authority.process.as_ref().ok_or_else(|| not_held("hooks"))?;
                for hook in offline {
                    // What a hook makes of it nobody can mend, and another try would tell it once more.
                    match by.system.process.run_recorded(grant, hook, tag, UNDOING) {
                        Ok(output) if output.code == 0 => {}
                        Ok(output) => warn!(hook = hook.helper, code = output.code, "a hook failed as its card went"),
                        Err(error) => warn!(hook = hook.helper, %error, "a hook was not told that its card went"),
                    }
                }
                by.end_tagged(tag)?;
            }
            Self::Command {
                tag,
                undo,
                settled,
                ended,
            } => {
                if !by.shared.undo.release(undo, by.part) {
                    return Ok(());
                }
                // It may still be at what is to be undone.
                if !ended {
                    by.end_tagged(tag)?;
                }
                let grant = by.authority.process.as_ref().ok_or_else(|| not_held("helper"))?;
                let output = by.system.process.run_recorded(grant, undo, tag, UNDOING)?;
                if output.code != 0 && !settled.contains(&output.code) {
                    return Err(Error::Kernel {
                        what: format!("{undo}: exit code {}", output.code),
                        errno: None,
                        source_text: crate::clean(String::from_utf8_lossy(&output.stderr).trim(), 200),
                    });
                }
                by.end_tagged(tag)?;
            }
        }
        Ok(())
    }

    /// What is held, for people: `loop0 on /srv/a.img`.
    pub fn describe(&self) -> String {
        match self {
            Self::Claim {
                source: SourceIdentity::File { device, inode },
                sharing,
            } => {
                format!("file {device:x}:{inode} {}", sharing.describe())
            }
            Self::Claim {
                source: SourceIdentity::BlockDevice { major, minor },
                sharing,
            } => {
                format!("block device {major}:{minor} {}", sharing.describe())
            }
            Self::Loop {
                device: Some(device), ..
            } => {
                format!("/dev/loop{} on {}", device.number, device.backing_path.display())
            }
            Self::Loop { device: None, .. } => "a loop device being attached".to_owned(),
            Self::Link { name, .. } => format!("link {name}"),
            Self::Address { address, .. } => format!("address {address}"),
            Self::Route { route, .. } => format!("route to {}", route.to),
            Self::ProxyArp { .. } => "proxy_arp".to_owned(),
            Self::Firewall { link } => format!("rules for {link}"),
            Self::Helper {
                kept: Some(kept),
                role: None,
                ..
            } => format!("{} as process {}", kept.helper, kept.pid),
            Self::Helper {
                kept: Some(kept),
                role: Some(_),
                ..
            } => format!("its part of {}, process {}", kept.helper, kept.pid),
            Self::Helper { kept: None, .. } => "what a helper has left running".to_owned(),
            Self::Command { undo, .. } => format!("what is undone by {undo}"),
            Self::Hooks { offline, .. } => {
                let names: Vec<&str> = offline.iter().map(|hook| &*hook.helper).collect();
                format!("hooks to be told: {}", names.join(", "))
            }
        }
    }
}

impl Sharing {
    fn describe(self) -> &'static str {
        match self {
            Self::Readers => "shared with readers",
            Self::Alone => "used alone",
            Self::Unchecked => "used unchecked",
        }
    }
}
