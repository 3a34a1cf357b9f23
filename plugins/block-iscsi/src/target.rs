//! Target, portal and multipath that `params` names.

use xenplug_sdk::Error;

/// Default port of a portal (RFC 7143, section 15).
const PORT: &str = "3260";

/// A target, as in `iqn=IQN,portal=ADDRESS[:PORT][,multipath=y]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) iqn: String,
    pub(crate) portal: String,
    pub(crate) multipath: bool,
}

impl Target {
    /// Parses `params`. Ignores unknown keys, as the script does.
    pub(crate) fn parse(params: &str) -> Result<Self, Error> {
        let value = |name: &str| {
            let mut found = params
                .split(',')
                .filter_map(|param| param.strip_prefix(name)?.strip_prefix('='));
            found.next_back().filter(|value| !value.is_empty())
        };
        let word = |name: &str| {
            let value = value(name).ok_or_else(|| Error::invalid("params", format!("names no {name}=")))?;
            let plain = |sign: char| sign.is_ascii_alphanumeric() || ".:-_[]".contains(sign);
            if value.starts_with('-') || !value.chars().all(plain) {
                return Err(Error::invalid("params", format!("`{value}` is not a good {name}")));
            }
            Ok(value.to_owned())
        };
        let multipath = match value("multipath") {
            None | Some("n") => false,
            Some("y") => true,
            Some(other) => {
                return Err(Error::invalid(
                    "params",
                    format!("multipath is y or n, and not `{other}`"),
                ));
            }
        };
        Ok(Self {
            iqn: word("iqn")?,
            portal: word("portal")?,
            multipath,
        })
    }

    /// Returns the path that udev gives the target's first disk (systemd/src/udev/udev-builtin-path_id.c,
    /// `handle_scsi_iscsi`).
    pub(crate) fn disk(&self) -> String {
        let (address, port) = match self.portal.rsplit_once(':') {
            // An IPv6 address is in brackets if a port follows.
            Some((address, port)) if !address.contains(':') || address.ends_with(']') => (address, port),
            _ => (&*self.portal, PORT),
        };
        let address = address.trim_start_matches('[').trim_end_matches(']');
        format!("/dev/disk/by-path/ip-{address}:{port}-iscsi-{}-lun-0", self.iqn)
    }

    /// Tells whether the output of iscsiadm, a list of sessions or targets, contains the target.
    pub(crate) fn is_in(&self, list: &str) -> bool {
        list.split_whitespace().any(|word| word == self.iqn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_name_a_target_and_its_portal() {
        let target = Target::parse("iqn=iqn.2001-04.com.example:a,portal=10.0.0.1").unwrap();
        assert_eq!(
            target,
            Target {
                iqn: "iqn.2001-04.com.example:a".into(),
                portal: "10.0.0.1".into(),
                multipath: false,
            }
        );
        assert!(
            Target::parse("portal=10.0.0.1,multipath=y,iqn=a,user=x")
                .unwrap()
                .multipath
        );
        for odd in [
            "",
            "iqn=a",
            "portal=10.0.0.1",
            "iqn=,portal=10.0.0.1",
            "iqn=-L,portal=10.0.0.1",
            "iqn=a b,portal=10.0.0.1",
            "iqn=../a,portal=10.0.0.1",
            "iqn=a,portal=--help",
            "iqn=a,portal=10.0.0.1,multipath=yes",
        ] {
            assert!(Target::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn disk_name_is_the_one_of_udev() {
        for (portal, name) in [
            ("10.0.0.1", "ip-10.0.0.1:3260-iscsi-iqn.a:b-lun-0"),
            ("10.0.0.1:860", "ip-10.0.0.1:860-iscsi-iqn.a:b-lun-0"),
            ("san.example", "ip-san.example:3260-iscsi-iqn.a:b-lun-0"),
            ("fd00::1", "ip-fd00::1:3260-iscsi-iqn.a:b-lun-0"),
            ("[fd00::1]", "ip-fd00::1:3260-iscsi-iqn.a:b-lun-0"),
            ("[fd00::1]:860", "ip-fd00::1:860-iscsi-iqn.a:b-lun-0"),
        ] {
            let target = Target::parse(&format!("iqn=iqn.a:b,portal={portal}")).unwrap();
            assert_eq!(target.disk(), format!("/dev/disk/by-path/{name}"));
        }
    }

    #[test]
    fn target_is_found_by_its_whole_name() {
        let target = Target::parse("iqn=iqn.a:b,portal=10.0.0.1").unwrap();
        assert!(target.is_in("tcp: [1] 10.0.0.1:3260,1 iqn.a:b (non-flash)\n"));
        assert!(target.is_in("10.0.0.1:3260,1 iqn.a:c\n10.0.0.1:3260,1 iqn.a:b\n"));
        assert!(!target.is_in("10.0.0.1:3260,1 iqn.a:bc\n"));
        assert!(!target.is_in(""));
    }
}
