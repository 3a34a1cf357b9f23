//! Saying what to change of a network interface.

use crate::network::LinkChanges;

/// `LinkChanges::new().mtu(1500).up()`; the host orders them.
impl LinkChanges {
    /// No change.
    pub fn new() -> Self {
        Self {
            flush_addresses: false,
            mac: None,
            mtu: None,
            name: None,
            up: None,
        }
    }

    /// Removes all IPv4 and IPv6 addresses.
    pub fn flush_addresses(mut self) -> Self {
        self.flush_addresses = true;
        self
    }

    /// Sets the hardware address, six pairs of hexadecimal digits with colons.
    pub fn mac(mut self, mac: &str) -> Self {
        self.mac = Some(mac.into());
        self
    }

    /// Sets the MTU in bytes.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Renames it, to at most 15 bytes.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Takes it up.
    pub fn up(mut self) -> Self {
        self.up = Some(true);
        self
    }

    /// Takes it down.
    pub fn down(mut self) -> Self {
        self.up = Some(false);
        self
    }
}

impl Default for LinkChanges {
    fn default() -> Self {
        Self::new()
    }
}
