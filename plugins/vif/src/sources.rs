//! Sources that a guest may send from, for the firewall: its `ip` and `mac`.

use std::net::IpAddr;

use xenplug_sdk::{Device, Error, OrInvalid, firewall::Sources};

/// Returns the sources that a device is restricted to, or `None` for any.
pub fn allowed(device: &Device, mac_filter: bool) -> Result<Option<Sources>, Error> {
    let addresses = device.setting("ip")?;
    if addresses.is_none() && !mac_filter {
        return Ok(None);
    }
    let mut sources = match addresses {
        Some(list) => parse(list)?,
        None => any_address(),
    };
    if mac_filter {
        sources.mac = Some(device.required("mac")?.to_owned());
    }
    Ok(Some(sources))
}

fn any_address() -> Sources {
    Sources {
        mac: None,
        ipv4: vec!["0.0.0.0/0".into()],
        ipv6: vec!["::/0".into()],
        dhcp: true,
    }
}

/// Parses the addresses and prefixes of a list into sources.
fn parse(list: &str) -> Result<Sources, Error> {
    let mut sources = Sources {
        mac: None,
        ipv4: Vec::new(),
        ipv6: Vec::new(),
        dhcp: true,
    };
    for (entry, address) in addresses(list)? {
        match address {
            IpAddr::V4(_) => sources.ipv4.push(entry.into()),
            IpAddr::V6(_) => sources.ipv6.push(entry.into()),
        }
    }
    if sources.ipv4.is_empty() && sources.ipv6.is_empty() {
        return Err(Error::invalid("ip", "names no address"));
    }
    Ok(sources)
}

/// Splits a list at spaces and commas. Returns each address or prefix as text, and its address.
pub fn addresses(list: &str) -> Result<Vec<(&str, IpAddr)>, Error> {
    list.split([' ', ','])
        .filter(|entry| !entry.is_empty())
        .map(|entry| Ok((entry, family(entry)?)))
        .collect()
}

/// Parses an address or prefix, and returns its address.
fn family(entry: &str) -> Result<IpAddr, Error> {
    let malformed = |_| format!("`{entry}` is neither an address nor a prefix");
    let (address, length) = match entry.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (entry, None),
    };
    let address: IpAddr = address.parse().map_err(malformed).or_invalid("ip")?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    match length.map(str::parse::<u8>) {
        None => Ok(address),
        Some(Ok(bits)) if bits <= longest => Ok(address),
        Some(_) => Err(Error::invalid(
            "ip",
            format!("`{entry}` has no length from 0 to {longest}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(nodes: &[(&str, &str)]) -> Device {
        Device::sample("vif", nodes)
    }

    #[test]
    fn vif_without_address_is_unrestricted() {
        assert_eq!(allowed(&device(&[("mac", "00:16:3e:00:00:01")]), false), Ok(None));
    }

    #[test]
    fn addresses_are_separated_by_spaces_or_commas() {
        for list in [
            "10.0.0.2 2001:db8::/64 10.1.0.0/16",
            "10.0.0.2,2001:db8::/64,10.1.0.0/16",
            " 10.0.0.2, 2001:db8::/64  10.1.0.0/16,",
        ] {
            let sources = allowed(&device(&[("ip", list)]), false).unwrap().unwrap();
            assert_eq!(sources.ipv4, ["10.0.0.2", "10.1.0.0/16"], "{list}");
            assert_eq!(sources.ipv6, ["2001:db8::/64"], "{list}");
            assert!(sources.dhcp);
            assert_eq!(sources.mac, None);
        }
    }

    #[test]
    fn addresses_may_be_parameters_of_the_script_call() {
        let parameters = [("ip", "10.0.0.9")];
        let device = |nodes: &[(&str, &str)]| {
            Device::sample("vif", nodes).called_with(xenplug_sdk::VifType::Paravirtual, &parameters)
        };
        let of = |nodes: &[(&str, &str)]| allowed(&device(nodes), false).unwrap().unwrap().ipv4;
        assert_eq!(of(&[]), ["10.0.0.9"]);
        assert_eq!(of(&[("ip", "10.0.0.2")]), ["10.0.0.2"]);
    }

    #[test]
    fn one_family_alone_shuts_out_the_other() {
        let sources = allowed(&device(&[("ip", "10.0.0.2")]), false).unwrap().unwrap();
        assert!(sources.ipv6.is_empty());
    }

    #[test]
    fn address_list_with_other_text_is_refused() {
        for list in [
            "",
            " ",
            ",",
            "10.0.0",
            "10.0.0.2/33",
            "2001:db8::/129",
            "10.0.0.2/",
            "10.0.0.2/-1",
            "host",
            "10.0.0.2;reboot",
            "10.0.0.2 x",
        ] {
            let result = allowed(&device(&[("ip", list)]), false);
            assert!(
                matches!(&result, Err(Error::InvalidParams(bad)) if bad.key == "ip"),
                "{list:?}: {result:?}"
            );
        }
    }

    #[test]
    fn mac_can_be_the_only_restriction() {
        let nodes = [("mac", "00:16:3e:00:00:01")];
        let sources = allowed(&device(&nodes), true).unwrap().unwrap();
        assert_eq!(sources.mac.as_deref(), Some("00:16:3e:00:00:01"));
        assert_eq!(sources.ipv4, ["0.0.0.0/0"]);
        assert_eq!(sources.ipv6, ["::/0"]);
    }

    #[test]
    fn missing_mac_for_the_mac_filter_is_refused() {
        assert_eq!(
            allowed(&device(&[("ip", "10.0.0.2")]), true),
            Err(Error::invalid("mac", "is missing"))
        );
    }
}
