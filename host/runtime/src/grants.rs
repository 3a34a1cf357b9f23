//! Grants of a plugin: the interfaces it may import, and the scope within each.

use xenplug_system::grant::{self, BlockGrant, FirewallGrant, HookGrant, NetworkGrant, Operator, ProcessGrant};

/// An interface of `xen:hotplug` that must be granted to be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Interface {
    /// `block = [...]`
    Block,
    /// `bridges = [...]`, `routes = [...]`, `uplinks = [...]`
    Network,
    /// `firewall = true`
    Firewall,
    /// `process = [...]`
    Process,
    /// `guest = true`
    Guest,
}

impl Interface {
    /// The interface's name in `wit/`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Network => "network",
            Self::Firewall => "firewall",
            Self::Process => "process",
            Self::Guest => "guest",
        }
    }

    /// The line of the plugin's `grant` table that grants it.
    pub fn configuration(self) -> &'static str {
        match self {
            Self::Block => r#"block = [{ path = "/var/lib/xen/images", access = "rw" }]"#,
            Self::Network => r#"bridges = ["xenbr*"]"#,
            Self::Firewall => "firewall = true",
            Self::Process => r#"process = [{ name = "...", path = "/...", args = [] }]"#,
            Self::Guest => "guest = true",
        }
    }
}

/// Grants of a plugin. The default is nothing.
#[derive(Debug, Default)]
pub struct Grants {
    /// Files, block devices and loop devices.
    pub block: Option<BlockGrant>,
    /// The device's own link, bridges, routes, and addresses of other links.
    pub network: Option<NetworkGrant>,
    /// Rules for the device's own link.
    pub firewall: Option<FirewallGrant>,
    /// Helper programs.
    pub process: Option<ProcessGrant>,
    /// Facts about the frontend domain.
    pub guest: bool,
    /// Hooks that the daemon runs for each vif. They are no interface of the handler.
    pub hooks: Option<HookGrant>,
}

impl Grants {
    /// The authority to release what a journal says is held, whatever is granted today to the plugin that acquired it.
    pub fn to_release(operator: &Operator) -> Self {
        Self {
            block: Some(BlockGrant::new(operator, Vec::new(), true)),
            network: Some(NetworkGrant::new(operator, vec![grant::NamePattern("*".to_owned())])),
            firewall: Some(FirewallGrant::new(operator)),
            process: Some(ProcessGrant::to_release(operator)),
            guest: false,
            hooks: None,
        }
    }

    /// Returns whether an interface is granted.
    pub fn has(&self, interface: Interface) -> bool {
        match interface {
            Interface::Block => self.block.is_some(),
            Interface::Network => self.network.is_some(),
            Interface::Firewall => self.firewall.is_some(),
            Interface::Process => self.process.is_some(),
            Interface::Guest => self.guest,
        }
    }
}
