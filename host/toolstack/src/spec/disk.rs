//! Disks (xl-disk-configuration(5); tools/libs/util/libxlu_disk_l.l; tools/libs/light/libxl_disk.c).

use xenplug_xenbus::{DevId, Kind};

use super::{Nodes, SpecError, dev_number, error::once, flag, script};

/// Keys with a value.
const KEYS: [&str; 15] = [
    "target",
    "format",
    "vdev",
    "access",
    "devtype",
    "backend",
    "backendtype",
    "script",
    "specification",
    "grant_usage",
    "colo-host",
    "colo-port",
    "colo-export",
    "active-disk",
    "hidden-disk",
];

/// Flags.
const FLAGS: [&str; 8] = [
    "discard",
    "cdrom",
    "direct-io-safe",
    "no-discard",
    "colo",
    "no-colo",
    "trusted",
    "untrusted",
];

const FORMATS: &str = "raw, qcow, qcow2, vhd, qed or empty";
const VDEV: &str = "a virtual device: xvda, hda, sda1, d0p0 or a number";

/// Disk specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Virtual device of the guest.
    pub vdev: String,
    /// Device number.
    pub devid: DevId,
    /// Kind of backend that serves the disk.
    pub kind: Kind,
    /// Backend domain, if given.
    pub backend: Option<String>,
    target: String,
    format: Format,
    script: Option<String>,
    writable: bool,
    cdrom: bool,
    discard: bool,
    direct_io_safe: bool,
    trusted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Raw,
    Qcow,
    Qcow2,
    Vhd,
    Qed,
    Empty,
}

impl Format {
    fn parse(text: &str) -> Result<Self, SpecError> {
        Ok(match text {
            "" | "raw" => Self::Raw,
            "qcow" => Self::Qcow,
            "qcow2" => Self::Qcow2,
            "vhd" => Self::Vhd,
            "qed" => Self::Qed,
            "empty" => Self::Empty,
            _ => return Err(SpecError::value("format", text, FORMATS)),
        })
    }

    /// Returns the name that QEMU and tapdisk know (libxl_device.c, `libxl__device_disk_string_of_format`).
    fn as_str(self) -> &'static str {
        match self {
            Self::Raw | Self::Empty => "aio",
            Self::Qcow => "qcow",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Qed => "qed",
        }
    }
}

/// Partly parsed specification.
#[derive(Debug, Default)]
struct Draft {
    target: Option<String>,
    format: Option<Format>,
    vdev: Option<String>,
    access: Option<bool>,
    positional_access: bool,
    /// A prefix named a format or a driver, as in `phy:/dev/vg0/a`, so no positional format follows.
    prefixed: bool,
    script: Option<String>,
    backend: Option<String>,
    backendtype: Option<String>,
    cdrom: bool,
    discard: Option<bool>,
    direct_io_safe: bool,
    untrusted: bool,
}

impl Disk {
    /// Parses a DISKSPEC.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut draft = Draft::default();
        let mut rest = text;
        loop {
            rest = rest.trim_start_matches([' ', '\t', '\n']);
            if rest.is_empty() {
                return draft.finish();
            }
            if let Some(target) = rest.strip_prefix("target=") {
                // The target takes the rest of the text.
                once("target", &mut draft.target, target.strip_suffix(',').unwrap_or(target))?;
                return draft.finish();
            }
            if let Some(after) = draft.prefix(rest)? {
                rest = after;
                continue;
            }
            let (word, after) = rest.split_once(',').unwrap_or((rest, ""));
            match word.split_once('=') {
                Some((key, value)) => draft.keyed(key, value)?,
                None if FLAGS.contains(&word) => draft.flag(word)?,
                None => draft.positional(word)?,
            }
            rest = after;
        }
    }

    /// Returns the nodes of the backend (libxl_disk.c, `device_disk_add`).
    pub(super) fn backend_nodes(&self) -> Nodes {
        let mut nodes = Vec::new();
        let path = if self.kind == Kind::VBD {
            self.target.clone()
        } else {
            format!("{}:{}", self.format.as_str(), self.target)
        };
        nodes.push(("params", path));
        if self.kind == Kind::VBD {
            nodes.push(("script", script(self.script.as_deref().unwrap_or("block"))));
        } else if self.kind == Kind::VBD3 {
            nodes.push(("script", script(self.script.as_deref().unwrap_or("block-tap"))));
        }
        let served_by = if self.kind == Kind::VBD {
            "phy"
        } else {
            self.kind.as_str()
        };
        nodes.extend([
            ("removable", flag(self.cdrom)),
            ("bootable", flag(true)),
            ("dev", self.vdev.clone()),
            ("type", served_by.to_owned()),
            ("mode", String::from(if self.writable { "w" } else { "r" })),
            ("device-type", self.device_type()),
        ]);
        if self.direct_io_safe {
            nodes.push(("direct-io-safe", flag(true)));
        }
        nodes.push(("discard-enable", flag(self.discard)));
        nodes.push(("specification", "xen".to_owned()));
        nodes
    }

    pub(super) fn frontend_nodes(&self) -> Nodes {
        vec![
            ("virtual-device", self.devid.to_string()),
            ("device-type", self.device_type()),
            ("trusted", flag(self.trusted)),
        ]
    }

    fn device_type(&self) -> String {
        String::from(if self.cdrom { "cdrom" } else { "disk" })
    }
}

impl Draft {
    /// Takes a deprecated prefix and returns the rest.
    fn prefix<'a>(&mut self, rest: &'a str) -> Result<Option<&'a str>, SpecError> {
        let Some((prefix, after)) = rest.split_once(':') else {
            return Ok(None);
        };
        match prefix {
            "raw" | "qcow" | "qcow2" | "vhd" => self.format(prefix)?,
            "iscsi" | "nbd" | "enbd" | "drbd" => once("script", &mut self.script, &format!("block-{prefix}"))?,
            "tapdisk" | "tap" | "tap2" | "aio" | "ioemu" | "file" | "phy" => {}
            _ => {
                let is_name = prefix.starts_with(|c: char| c.is_ascii_lowercase())
                    && prefix.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
                if is_name && after.starts_with('/') {
                    return Err(SpecError::value(
                        "target",
                        &format!("{prefix}:"),
                        "a known prefix: raw, qcow, qcow2, vhd, iscsi, nbd, enbd, drbd, tapdisk, tap, aio, file or phy",
                    ));
                }
                return Ok(None);
            }
        }
        self.prefixed = true;
        Ok(Some(after))
    }

    fn keyed(&mut self, key: &str, value: &str) -> Result<(), SpecError> {
        match key {
            "format" => self.format(value),
            "vdev" => once("vdev", &mut self.vdev, value),
            "access" => self.access(value),
            "devtype" => match value {
                "cdrom" | "disk" => {
                    self.cdrom = value == "cdrom";
                    Ok(())
                }
                _ => Err(SpecError::value("devtype", value, "cdrom or disk")),
            },
            "backend" => once("backend", &mut self.backend, value),
            "backendtype" => match value {
                "phy" | "tap" | "qdisk" => match &self.backendtype {
                    Some(first) if first != value => once("backendtype", &mut self.backendtype, value),
                    _ => {
                        self.backendtype = Some(value.to_owned());
                        Ok(())
                    }
                },
                "standalone" => Err(SpecError::unsupported(
                    key,
                    "a virtio disk cannot be attached to a running guest",
                )),
                _ => Err(SpecError::value("backendtype", value, "phy, tap or qdisk")),
            },
            "script" => once("script", &mut self.script, value),
            "specification" => match value {
                "xen" => Ok(()),
                "virtio" => Err(SpecError::unsupported(
                    key,
                    "a virtio disk cannot be attached to a running guest",
                )),
                _ => Err(SpecError::value("specification", value, "xen")),
            },
            "grant_usage" => Err(SpecError::unsupported(key, "is for virtio disks alone")),
            "colo-host" | "colo-port" | "colo-export" | "active-disk" | "hidden-disk" => {
                Err(SpecError::unsupported(key, COLO))
            }
            _ if key.starts_with(|c: char| c.is_ascii_lowercase()) && !key.contains([':', '/']) => {
                Err(SpecError::unknown(key, &KEYS))
            }
            _ => Err(SpecError::value(
                "target",
                &format!("{key}={value}"),
                "a path without `=` and `,`; such a one has to come last, after `target=`",
            )),
        }
    }

    fn flag(&mut self, flag: &str) -> Result<(), SpecError> {
        match flag {
            "cdrom" => self.cdrom = true,
            "direct-io-safe" => self.direct_io_safe = true,
            "discard" => self.discard = Some(true),
            "no-discard" => self.discard = Some(false),
            "trusted" => self.untrusted = false,
            "untrusted" => self.untrusted = true,
            "colo" => return Err(SpecError::unsupported(flag, COLO)),
            // "no-colo" is the default.
            _ => {}
        }
        Ok(())
    }

    /// Takes a value without a key, by its position.
    fn positional(&mut self, word: &str) -> Result<(), SpecError> {
        if self.target.is_none() {
            self.target = Some(word.to_owned());
        } else if !self.prefixed && self.format.is_none() {
            let empty = self.target.as_deref() == Some("") && self.vdev_and_devtype(word)?;
            if empty {
                self.format = Some(Format::Empty);
            } else {
                self.format(word)?;
            }
        } else if self.vdev.is_none() {
            if !self.vdev_and_devtype(word)? {
                self.vdev = Some(word.to_owned());
            }
        } else if !self.positional_access {
            self.positional_access = true;
            self.access(word)?;
        } else {
            return Err(SpecError::TooMany(word.to_owned()));
        }
        Ok(())
    }

    /// Takes `hdc:cdrom`, which is deprecated.
    fn vdev_and_devtype(&mut self, word: &str) -> Result<bool, SpecError> {
        let Some((vdev, devtype)) = word.rsplit_once(':') else {
            return Ok(false);
        };
        once("vdev", &mut self.vdev, vdev)?;
        self.keyed("devtype", devtype)?;
        Ok(true)
    }

    fn format(&mut self, text: &str) -> Result<(), SpecError> {
        let format = Format::parse(text)?;
        match self.format {
            Some(first) if first != format => Err(SpecError::Twice {
                key: "format",
                first: format!("{first:?}").to_lowercase(),
                second: text.to_owned(),
            }),
            _ => {
                self.format = Some(format);
                Ok(())
            }
        }
    }

    fn access(&mut self, text: &str) -> Result<(), SpecError> {
        self.access = Some(match text {
            "r" | "ro" => false,
            "" | "w" | "rw" => true,
            _ => return Err(SpecError::value("access", text, "r, ro, w or rw")),
        });
        Ok(())
    }

    fn finish(self) -> Result<Disk, SpecError> {
        let vdev = self.vdev.filter(|vdev| !vdev.is_empty()).ok_or(SpecError::Missing {
            key: "vdev",
            expected: VDEV,
        })?;
        let devid = dev_number(&vdev).ok_or_else(|| SpecError::value("vdev", &vdev, VDEV))?;
        let target = self.target.unwrap_or_default();
        let format = match self.format {
            _ if self.cdrom && target.is_empty() => Format::Empty,
            format => format.unwrap_or(Format::Raw),
        };
        if format == Format::Empty && !self.cdrom {
            return Err(SpecError::value(
                "format",
                "empty",
                "for a disk, which has a target; a cdrom may be empty",
            ));
        }
        if format == Format::Empty && !target.is_empty() {
            return Err(SpecError::value(
                "target",
                &target,
                "expected: the format says that the drive is empty",
            ));
        }
        if target.is_empty() && !self.cdrom {
            return Err(SpecError::Missing {
                key: "target",
                expected: "a block device or an image file",
            });
        }
        let script = self.script.filter(|script| !script.is_empty());
        let kind = kind(self.backendtype.as_deref(), format, script.is_some())?;
        // A CD-ROM is read-only whatever the access says.
        let writable = self.access.unwrap_or(true) && !self.cdrom;
        Ok(Disk {
            discard: self.discard.unwrap_or(writable),
            direct_io_safe: self.direct_io_safe,
            trusted: !self.untrusted,
            backend: self.backend.filter(|backend| !backend.is_empty()),
            cdrom: self.cdrom,
            vdev,
            devid,
            kind,
            target,
            format,
            script,
            writable,
        })
    }
}

/// Returns the kind of backend for a disk in a driver domain, whose block devices dom0 cannot inspect (libxl_device.c,
/// `libxl__device_disk_set_backend`).
fn kind(backendtype: Option<&str>, format: Format, script: bool) -> Result<Kind, SpecError> {
    use Format::{Empty, Raw, Vhd};
    let serves = |kind: &str| match kind {
        "phy" => matches!(format, Raw | Empty),
        "qdisk" => !script,
        _ => matches!(format, Raw | Vhd),
    };
    let name = match backendtype {
        Some(name) if serves(name) => name,
        Some("qdisk") => {
            return Err(SpecError::unsupported(
                "backendtype",
                "qdisk runs no script; expected phy or tap with `script`",
            ));
        }
        Some("phy") => return Err(SpecError::unsupported("backendtype", "phy serves the format raw alone")),
        Some(_) => {
            return Err(SpecError::unsupported(
                "backendtype",
                "tap serves the formats raw and vhd alone",
            ));
        }
        None => ["phy", "qdisk", "tap"]
            .into_iter()
            .find(|name| serves(name))
            .ok_or_else(|| SpecError::unsupported("script", "a script serves the formats raw and vhd alone"))?,
    };
    Ok(match name {
        "phy" => Kind::VBD,
        "qdisk" => Kind::QDISK,
        _ => Kind::VBD3,
    })
}

const COLO: &str = "COLO's disks are set up with their guest, and cannot be attached later";
