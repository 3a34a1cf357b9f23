//! Changes of a network interface.

use crate::network::LinkChanges;

/// Builder: `LinkChanges::new().mtu(1500).up()`. The host makes the changes in its own order.
impl LinkChanges {
    /// Makes an empty set of changes.
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

    /// Sets the name, at most 15 bytes.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the interface up.
    pub fn up(mut self) -> Self {
        self.up = Some(true);
        self
    }

    /// Sets the interface down.
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
