//! The text of what a DHCP server reads, with and without a guest's entry.

use super::Lease;
use crate::Error;

/// The variables that name the links a server serves: of Red Hat, SUSE and Debian.
const LINKS: [&str; 4] = ["DHCPDARGS", "DHCPD_INTERFACE", "INTERFACES", "INTERFACESv4"];

/// An error unless the entry's name can be one.
pub(crate) fn check(lease: &Lease) -> Result<(), Error> {
    let plain = |sign: char| sign.is_ascii_alphanumeric() || sign == '-';
    match (1..=63).contains(&lease.host.len()) && lease.host.chars().all(plain) {
        true => Ok(()),
        false => Err(Error::Invalid {
            key: "host",
            cause: format!(
                "{:?} cannot be the name of an entry",
                lease.host.chars().take(64).collect::<String>()
            ),
        }),
    }
}

/// A configuration with an entry.
pub(crate) fn with_entry(text: &str, lease: &Lease) -> String {
    let mut text = without_entry(text, lease);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let Lease {
        host,
        mac,
        address,
        router,
        ..
    } = lease;
    text + &format!(
        "host {host} {{ hardware ethernet {mac}; fixed-address {address}; option routers {router}; option host-name \"{host}\"; }}\n"
    )
}

/// The configuration without it. The script strikes out `dom30` with `dom3`.
pub(crate) fn without_entry(text: &str, lease: &Lease) -> String {
    let is_entry = |line: &&str| {
        let mut words = line.split_whitespace();
        (words.next(), words.next()) == (Some("host"), Some(&*lease.host))
    };
    text.split_inclusive('\n').filter(|line| !is_entry(line)).collect()
}

/// The variables with the link among those that are served.
pub(crate) fn with_link(text: &str, lease: &Lease) -> String {
    each_link(text, |links| {
        if !links.contains(&lease.link.as_str()) {
            links.push(lease.link.as_str());
        }
    })
}

/// The variables without it.
pub(crate) fn without_link(text: &str, lease: &Lease) -> String {
    each_link(text, |links| links.retain(|link| *link != lease.link.as_str()))
}

/// Changes the value of each variable that names links, in whatever quotes it is; a line that is not changed stays as it is.
fn each_link<'a>(text: &'a str, change: impl Fn(&mut Vec<&'a str>)) -> String {
    let line = |line: &'a str| {
        let (content, end) = line.strip_suffix('\n').map_or((line, ""), |content| (content, "\n"));
        let named = content.split_once('=').filter(|(name, _)| LINKS.contains(name));
        let Some((name, value)) = named else {
            return line.to_owned();
        };
        let mut links: Vec<&str> = value.trim().trim_matches('"').split_whitespace().collect();
        let before = links.clone();
        change(&mut links);
        match links == before {
            true => line.to_owned(),
            false => format!("{name}=\"{}\"{end}", links.join(" ")),
        }
    };
    text.split_inclusive('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(host: &str) -> Lease {
        Lease {
            host: host.to_owned(),
            mac: "00:16:3e:00:00:01".parse().expect("an address"),
            address: "10.0.3.1".parse().expect("an address"),
            router: "10.0.3.128".parse().expect("an address"),
            link: "vif3.0".parse().expect("a name"),
        }
    }

    const ENTRY: &str = "host dom3 { hardware ethernet 00:16:3e:00:00:01; fixed-address 10.0.3.1; option routers 10.0.3.128; \
                         option host-name \"dom3\"; }\n";

    #[test]
    fn an_entry_takes_its_own_place_and_no_other() {
        let others = "# mine\nhost dom30 { }\nhost dom3-2 { }\nsubnet x\n";
        let with = with_entry(others, &lease("dom3"));
        assert_eq!(with, format!("{others}{ENTRY}"));
        assert_eq!(with_entry(&with, &lease("dom3")), with);
        assert_eq!(without_entry(&with, &lease("dom3")), others);
        assert_eq!(without_entry(others, &lease("dom3")), others);
        assert_eq!(with_entry("no end", &lease("dom3")), format!("no end\n{ENTRY}"));
        assert_eq!(with_entry("", &lease("dom3")), ENTRY);
    }

    #[test]
    fn links_are_added_to_the_variables_of_each_distribution() {
        for (before, after) in [
            ("INTERFACES=\"\"\n", "INTERFACES=\"vif3.0\"\n"),
            ("INTERFACESv4=\"eth0\"\nA=b\n", "INTERFACESv4=\"eth0 vif3.0\"\nA=b\n"),
            ("DHCPDARGS=eth0\n", "DHCPDARGS=\"eth0 vif3.0\"\n"),
            ("DHCPD_INTERFACE=\"eth0 eth1\"", "DHCPD_INTERFACE=\"eth0 eth1 vif3.0\""),
            ("#INTERFACES=\"\"\n", "#INTERFACES=\"\"\n"),
            ("INTERFACESv6=\"\"\n", "INTERFACESv6=\"\"\n"),
        ] {
            let with = with_link(before, &lease("dom3"));
            assert_eq!(with, after);
            assert_eq!(with_link(&with, &lease("dom3")), after);
            let without = without_link(&with, &lease("dom3"));
            assert_eq!(without.replace('"', ""), before.replace('"', ""));
            assert_eq!(without_link(before, &lease("dom3")), before);
        }
        assert_eq!(
            without_link("INTERFACES=\"vif3.01 vif3.0\"\n", &lease("dom3")),
            "INTERFACES=\"vif3.01\"\n"
        );
    }

    #[test]
    fn a_name_is_one_word() {
        assert!(check(&lease("dom3-2")).is_ok());
        let long = "x".repeat(64);
        for host in ["", "a b", "a{", "a\"", "a;b", &long] {
            assert!(check(&lease(host)).is_err(), "{host}");
        }
    }
}
