//! Network interfaces (xl-network-configuration(5); tools/xl/xl_parse.c, `parse_nic_config`; tools/libs/light/libxl_nic.c).

use std::{fs::File, io::Read};

use xenplug_xenbus::DevId;

use super::{Nodes, SpecError, error::once, flag, rate::Rate, script, vlan};

const KEYS: [&str; 18] = [
    "mac",
    "bridge",
    "gatewaydev",
    "netdev",
    "type",
    "model",
    "vifname",
    "script",
    "ip",
    "backend",
    "rate",
    "devid",
    "mtu",
    "vlan",
    "trusted",
    "untrusted",
    "forwarddev",
    "accel",
];

/// MTU of a vif without one, as in libxl.
const MTU: u32 = 1500;

/// Longest name of a link: `IFNAMSIZ` includes the terminator (linux/include/uapi/linux/if.h).
const IFNAME_MAX: usize = 15;

/// Network interface specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vif {
    /// Device number, if given.
    pub devid: Option<DevId>,
    /// MAC address.
    pub mac: [u8; 6],
    /// Backend domain, if given.
    pub backend: Option<String>,
    bridge: Option<String>,
    gatewaydev: Option<String>,
    vifname: Option<String>,
    script: Option<String>,
    ip: Option<String>,
    rate: Option<Rate>,
    mtu: u32,
    vlan: Option<String>,
    trusted: bool,
}

impl Vif {
    /// Parses a vifspec. A vif without `mac` gets a random address.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut draft = Draft::default();
        for word in text.split(',').map(|word| word.trim_matches([' ', '\t', '\n'])) {
            match word.split_once('=') {
                Some((key, value)) => draft.keyed(key, value)?,
                None => draft.flag(word)?,
            }
        }
        draft.finish()
    }

    pub(super) fn backend_nodes(&self, devid: DevId) -> Nodes {
        let mut nodes = vec![("script", script(self.script.as_deref().unwrap_or("vif-bridge")))];
        let mut maybe = |name, value: Option<String>| nodes.extend(value.map(|value| (name, value)));
        maybe("vifname", self.vifname.clone());
        maybe("mac", Some(self.mac_text()));
        maybe("ip", self.ip.clone());
        maybe("gatewaydev", self.gatewaydev.clone());
        maybe("rate", self.rate.as_ref().map(Rate::to_string));
        maybe("mtu", (self.mtu != MTU).then(|| self.mtu.to_string()));
        maybe("vlan", self.vlan.clone());
        maybe("bridge", Some(self.bridge.as_deref().unwrap_or("xenbr0").to_owned()));
        maybe("handle", Some(devid.to_string()));
        maybe("type", Some("vif".to_owned()));
        nodes
    }

    pub(super) fn frontend_nodes(&self, devid: DevId) -> Nodes {
        vec![
            ("handle", devid.to_string()),
            ("mac", self.mac_text()),
            ("mtu", self.mtu.to_string()),
            ("trusted", flag(self.trusted)),
        ]
    }

    fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

#[derive(Debug, Default)]
struct Draft {
    mac: Option<String>,
    bridge: Option<String>,
    gatewaydev: Option<String>,
    ty: Option<String>,
    model: Option<String>,
    vifname: Option<String>,
    script: Option<String>,
    ip: Option<String>,
    backend: Option<String>,
    rate: Option<String>,
    devid: Option<String>,
    mtu: Option<String>,
    vlan: Option<String>,
    untrusted: bool,
}

impl Draft {
    fn keyed(&mut self, key: &str, value: &str) -> Result<(), SpecError> {
        let (key, to) = match key {
            "mac" => ("mac", &mut self.mac),
            "bridge" => ("bridge", &mut self.bridge),
            // `netdev` is the older name.
            "netdev" | "gatewaydev" => ("gatewaydev", &mut self.gatewaydev),
            "type" => ("type", &mut self.ty),
            "model" => ("model", &mut self.model),
            "vifname" => ("vifname", &mut self.vifname),
            "script" => ("script", &mut self.script),
            "ip" => ("ip", &mut self.ip),
            "backend" => ("backend", &mut self.backend),
            "rate" => ("rate", &mut self.rate),
            "devid" => ("devid", &mut self.devid),
            "mtu" => ("mtu", &mut self.mtu),
            "vlan" => ("vlan", &mut self.vlan),
            "trusted" | "untrusted" => {
                return Err(SpecError::unsupported(key, "is a flag; expected no value"));
            }
            "accel" => return Err(SpecError::unsupported(key, "xl does not support it either")),
            "forwarddev" => return Err(SpecError::unsupported(key, COLO)),
            _ if key.starts_with("colo_") => return Err(SpecError::unsupported(key, COLO)),
            _ => return Err(SpecError::unknown(key, &KEYS)),
        };
        once(key, to, value)
    }

    fn flag(&mut self, word: &str) -> Result<(), SpecError> {
        match word {
            "" | "trusted" => Ok(()),
            "untrusted" => {
                self.untrusted = true;
                Ok(())
            }
            _ => match KEYS.into_iter().find(|key| *key == word) {
                Some(key) => Err(SpecError::Missing {
                    key,
                    expected: "`=` and a value",
                }),
                None => Err(SpecError::unknown(word, &KEYS)),
            },
        }
    }

    fn finish(self) -> Result<Vif, SpecError> {
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        match given(self.ty).as_deref() {
            None | Some("vif") => {}
            Some("ioemu") => {
                return Err(SpecError::unsupported(
                    "type",
                    "a vif that is attached to a running guest cannot be emulated; expected vif",
                ));
            }
            Some(other) => return Err(SpecError::value("type", other, "vif")),
        }
        let link = |key, value: Option<String>| match given(value) {
            Some(name) if name.len() > IFNAME_MAX || name.contains(['/', ' ', ':']) => Err(SpecError::value(
                key,
                &name,
                "a link's name: at most 15 characters, none of them `/`, `:` or a space",
            )),
            name => Ok(name),
        };
        let number = |key, value: Option<String>, range: std::ops::RangeInclusive<u32>, expected| match given(value) {
            None => Ok(None),
            Some(text) => match text.parse().ok().filter(|number| range.contains(number)) {
                Some(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(number)),
                _ => Err(SpecError::value(key, &text, expected)),
            },
        };
        Ok(Vif {
            devid: number("devid", self.devid, 0..=0xff_ffff, "a device's number")?.map(DevId),
            mac: given(self.mac).map_or_else(random_mac, |text| mac(&text))?,
            backend: given(self.backend),
            // The name of an Open vSwitch bridge may have `.tag:trunk` appended.
            bridge: given(self.bridge),
            gatewaydev: link("gatewaydev", self.gatewaydev)?,
            vifname: link("vifname", self.vifname)?,
            script: given(self.script),
            ip: given(self.ip),
            rate: given(self.rate).map(|text| Rate::parse(&text)).transpose()?,
            mtu: number("mtu", self.mtu, 68..=65535, "a number of bytes from 68 to 65535")?.unwrap_or(MTU),
            vlan: given(self.vlan).map(vlan::checked).transpose()?,
            trusted: !self.untrusted,
        })
    }
}

fn mac(text: &str) -> Result<[u8; 6], SpecError> {
    const FORM: &str = "an address: six groups of two hexadecimal digits, 00:16:3e:01:02:03";
    let mut bytes = [0; 6];
    let groups: Vec<&str> = text.split(':').collect();
    let fits = groups.len() == 6
        && groups
            .iter()
            .all(|group| group.len() == 2 && group.bytes().all(|b| b.is_ascii_hexdigit()));
    if !fits {
        return Err(SpecError::value("mac", text, FORM));
    }
    for (byte, group) in bytes.iter_mut().zip(groups) {
        *byte = u8::from_str_radix(group, 16).map_err(|_| SpecError::value("mac", text, FORM))?;
    }
    if bytes[0] & 1 == 1 {
        return Err(SpecError::value("mac", text, "a unicast address"));
    }
    Ok(bytes)
}

/// Makes an address with Xen's prefix (libxl_nic.c, `libxl__device_nic_setdefault`).
fn random_mac() -> Result<[u8; 6], SpecError> {
    let mut bytes = [0; 3];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|_| SpecError::Missing {
            key: "mac",
            expected: "an address, as /dev/urandom cannot be read for a random one",
        })?;
    Ok([0x00, 0x16, 0x3e, bytes[0] & 0x7f, bytes[1], bytes[2]])
}

const COLO: &str = "COLO's vifs are set up with their guest and cannot be attached";
