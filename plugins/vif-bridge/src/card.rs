//! What a device's nodes ask for, read without a look at the machine.

use xenplug_sdk::{Device, Error, OrInvalid};

/// A network card as its device asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) bridge: Option<String>,
    /// The interface's new name.
    pub(crate) name: Option<String>,
    /// Bytes.
    pub(crate) mtu: Option<u32>,
}

impl Card {
    pub(crate) fn of(device: &Device) -> Result<Self, Error> {
        let mtu = match device.optional("mtu")? {
            Some(mtu) => mtu.parse().or_invalid("mtu")?,
            None => 0,
        };
        Ok(Self {
            bridge: device.optional("bridge")?.map(str::to_owned),
            name: device.optional("vifname")?.map(str::to_owned),
            // 0 stands for none (tools/hotplug/Linux/xen-network-common.sh, `set_mtu`).
            mtu: (mtu > 0).then_some(mtu),
        })
    }
}

/// What `xenbrN` is called where the bridge carries the name of its physical card: `ethN`. Configurations written
/// before that still say `xenbrN` (tools/hotplug/Linux/vif-bridge).
pub(crate) fn former_name(bridge: &str) -> Option<String> {
    bridge.strip_prefix("xenbr").map(|number| format!("eth{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(nodes: &[(&str, &str)]) -> Result<Card, Error> {
        Card::of(&Device::sample("vif", nodes))
    }

    #[test]
    fn everything_may_be_left_out() {
        assert_eq!(
            card(&[]),
            Ok(Card {
                bridge: None,
                name: None,
                mtu: None
            })
        );
    }

    #[test]
    fn everything_may_be_named() {
        assert_eq!(
            card(&[("bridge", "xenbr1"), ("vifname", "web"), ("mtu", "9000")]),
            Ok(Card {
                bridge: Some("xenbr1".into()),
                name: Some("web".into()),
                mtu: Some(9000)
            })
        );
    }

    #[test]
    fn what_is_there_is_not_empty() {
        for key in ["bridge", "vifname", "mtu"] {
            assert_eq!(card(&[(key, "")]), Err(Error::invalid(key, "is empty")));
        }
    }

    #[test]
    fn an_mtu_of_zero_is_none() {
        assert_eq!(card(&[("mtu", "0")]).map(|card| card.mtu), Ok(None));
    }

    #[test]
    fn an_mtu_is_a_number() {
        for mtu in ["large", "-1", "1500 ", "99999999999"] {
            assert!(
                matches!(card(&[("mtu", mtu)]), Err(Error::InvalidParams(bad)) if bad.key == "mtu"),
                "{mtu}"
            );
        }
    }

    #[test]
    fn a_former_bridge_name_stands_for_the_card() {
        assert_eq!(former_name("xenbr0").as_deref(), Some("eth0"));
        assert_eq!(former_name("xenbr12").as_deref(), Some("eth12"));
        assert_eq!(former_name("br0"), None);
    }
}
