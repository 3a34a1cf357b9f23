//! Addresses of a vif behind NAT: the guest's, and the link's, through which the guest reaches the host.

use std::net::Ipv4Addr;

use xenplug_sdk::{Device, Error, OrInvalid};

/// Offset of the router's address from the guest's (tools/hotplug/Linux/vif-nat, `routing_ip`).
const ROUTER: u8 = 127;

/// The two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    pub(crate) guest: Ipv4Addr,
    pub(crate) router: Ipv4Addr,
}

impl Addresses {
    pub(crate) fn of(device: &Device) -> Result<Self, Error> {
        let (key, guest) = match device.setting("ip")? {
            Some(text) => ("ip", parse(text)?),
            None => ("handle", of_domain(device)?),
        };
        let [a, b, c, d] = guest.octets();
        let router = d
            .checked_add(ROUTER)
            .map(|d| Ipv4Addr::new(a, b, c, d))
            .ok_or_else(|| {
                Error::invalid(
                    key,
                    format!("{guest} leaves no address for the router, {ROUTER} further"),
                )
            })?;
        Ok(Self { guest, router })
    }
}

/// Parses one address, and ignores a prefix length after it.
fn parse(text: &str) -> Result<Ipv4Addr, Error> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    let fits = length.parse::<u8>().is_ok_and(|length| length <= 32);
    address
        .parse()
        .ok()
        .filter(|_| fits)
        .ok_or_else(|| Error::invalid("ip", format!("`{text}` is not one IPv4 address")))
}

/// Returns the vif's number within its domain.
fn handle(device: &Device) -> Result<u32, Error> {
    match device.optional("handle")? {
        Some(handle) => handle.parse().or_invalid("handle"),
        None => Ok(device.devid),
    }
}

/// Derives the address of a vif from the domain id.
fn of_domain(device: &Device) -> Result<Ipv4Addr, Error> {
    let handle = handle(device)?;
    let [high, low] = device.frontend_id.to_be_bytes();
    let number = u8::try_from(handle).ok().and_then(|handle| handle.checked_add(1));
    let number = number.ok_or_else(|| Error::invalid("handle", format!("{handle} is too large for an address")))?;
    Ok(Ipv4Addr::new(10, high, low, number))
}

#[cfg(test)]
mod tests {
    use xenplug_sdk::VifType;

    use super::*;

    fn addresses(domid: u16, nodes: &[(&str, &str)], parameters: &[(&str, &str)]) -> Result<(String, String), Error> {
        let device = Device {
            frontend_id: domid,
            ..Device::sample("vif", nodes).called_with(VifType::Paravirtual, parameters)
        };
        Addresses::of(&device).map(|both| (both.guest.to_string(), both.router.to_string()))
    }

    #[test]
    fn vif_addresses_derive_from_the_domid() {
        for (domid, handle, guest, router) in [
            (3, "0", "10.0.3.1", "10.0.3.128"),
            (3, "2", "10.0.3.3", "10.0.3.130"),
            (700, "0", "10.2.188.1", "10.2.188.128"),
            (3, "127", "10.0.3.128", "10.0.3.255"),
        ] {
            assert_eq!(
                addresses(domid, &[("handle", handle)], &[]),
                Ok((guest.into(), router.into()))
            );
        }
        assert_eq!(addresses(3, &[], &[]), Ok(("10.0.3.1".into(), "10.0.3.128".into())));
        for handle in ["128", "255", "300", "x", "-1"] {
            assert!(
                matches!(addresses(3, &[("handle", handle)], &[]), Err(Error::InvalidParams(bad)) if bad.key == "handle"),
                "{handle}"
            );
        }
    }

    #[test]
    fn configured_address_is_the_guests() {
        let expected = Ok(("192.0.2.5".to_owned(), "192.0.2.132".to_owned()));
        assert_eq!(addresses(3, &[("ip", "192.0.2.5")], &[("ip", "192.0.2.9")]), expected);
        assert_eq!(addresses(3, &[("ip", "192.0.2.5/24")], &[]), expected);
        assert_eq!(addresses(3, &[], &[("ip", "192.0.2.5")]), expected);
        for ip in [
            "192.0.2.129",
            "192.0.2.5 192.0.2.6",
            "2001:db8::1",
            "192.0.2.5/33",
            "192.0.2.5/",
            "x",
        ] {
            assert!(
                matches!(addresses(3, &[("ip", ip)], &[]), Err(Error::InvalidParams(bad)) if bad.key == "ip"),
                "{ip}"
            );
        }
    }
}
