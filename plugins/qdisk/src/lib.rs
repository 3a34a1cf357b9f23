//! Handler for disks that QEMU serves, kind `qdisk`: in a driver domain like those of `xl devd`, or for a request in
//! dom0.
//!
//! One QEMU serves all disks of a guest. The first disk starts it, with libxl's arguments (libxl_dm.c,
//! `libxl__spawn_qemu_xenpv_backend`), and the last one ends it. QEMU finds the guest's disks in the store by itself,
//! and is their backend, as the kernel is for others: it opens the image that `params` names and writes the `state`.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | a format and the path of an image: `aio` for a raw one, or `qcow2` (more with the setting `formats`) |
//! | `mode`, `device-type` | as for any disk |
//!
//! The handler publishes no nodes, so the daemon writes `hotplug-status` only.
//!
//! | setting | meaning |
//! | --- | --- |
//! | `formats` | formats that are served; `["aio", "qcow2"]` by default |
//! | `user` | the user that QEMU becomes; it needs the images and Xen's devices |
//! | `sandbox` | value of QEMU's option `-sandbox`; none by default, because Debian's QEMU for Xen lacks the option |
//! | `timeout` | milliseconds to wait until QEMU serves a disk; 60000 by default. The deadline has to be longer |

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

use xenplug_sdk::{
    Command, Connection, Description, Device, Error, Handler, config,
    disk::{Disk, Image},
};

/// Formats that are served by default.
const FORMATS: &str = "aio qcow2";

/// Milliseconds to wait until QEMU serves a disk. libxl waits as long for QEMU to start (libxl_internal.h,
/// `LIBXL_DEVICE_MODEL_START_TIMEOUT`), and does not wait for the disk (libxl_device.c,
/// `libxl__wait_device_connection`).
const TIMEOUT: u32 = 60_000;

/// Handler for disks that QEMU serves.
struct Qdisk;

impl Handler for Qdisk {
    fn describe() -> Description {
        Description::new("disk images that QEMU serves, one for each guest")
            .kind("qdisk")
            .script("qdisk")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let settings = Settings::of(config::value)?;
        let image = settings.image(device)?;
        let disk = Disk::at(device, image.path)?;
        // QEMU opens the image by itself and without a lock (hw/block/xen-block.c). This checks that it may.
        let source = disk.open()?;
        source.claim(disk.sharing()).map_err(|error| error.of("params"))?;
        let qemu = Command::of("qemu")
            .args(settings.arguments(device.frontend_id))
            .join()?;
        // "failed to create 'qdisk' device '51712': " (hw/xen/xen-bus.c, `xen_bus_backend_create`).
        qemu.wait_until_serving(settings.timeout, Some(&format!("'qdisk' device '{}'", device.devid)))?;
        Ok(Connection::new())
    }
}

/// Settings of the operator.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    formats: String,
    user: Option<String>,
    sandbox: Option<String>,
    timeout: u32,
}

impl Settings {
    fn of(value: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let timeout = match value("timeout") {
            None => TIMEOUT,
            Some(text) => text
                .parse()
                .map_err(|_| Error::Other(format!("setting `timeout`: `{text}` is no number of milliseconds")))?,
        };
        Ok(Self {
            formats: value("formats").unwrap_or_else(|| FORMATS.into()),
            user: value("user"),
            sandbox: value("sandbox"),
            timeout,
        })
    }

    /// Parses the image, and checks that its format is served. QEMU would accept the name of any of its drivers, and
    /// guess the format without a name (XSA-258).
    fn image<'d>(&self, device: &'d Device) -> Result<Image<'d>, Error> {
        let image = Image::parse(device.required("params")?)?;
        if self.formats.split(' ').any(|format| format == image.format) {
            return Ok(image);
        }
        Err(Error::invalid(
            "params",
            format!("`{}` is none of the formats {}", image.format, self.formats),
        ))
    }

    fn arguments(&self, guest: u16) -> Vec<String> {
        let (domid, name) = (guest.to_string(), format!("domain-{guest}"));
        let mut arguments = vec!["-xen-domid", &domid, "-xen-attach", "-name", &name, "-nographic"];
        arguments.extend(["-M", "xenpv", "-monitor", "/dev/null"]);
        arguments.extend(["-serial", "/dev/null", "-parallel", "/dev/null"]);
        arguments.extend(self.sandbox.iter().flat_map(|sandbox| ["-sandbox", sandbox]));
        arguments.extend(self.user.iter().flat_map(|user| ["-runas", user]));
        arguments.into_iter().map(Into::into).collect()
    }
}

xenplug_sdk::export!(Qdisk);

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(values: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::of(|key| {
            let found = values.iter().find(|(known, _)| *known == key);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn qemu_is_started_as_libxl_does() {
        let libxls = "-xen-domid 5 -xen-attach -name domain-5 -nographic -M xenpv -monitor /dev/null -serial /dev/null \
                      -parallel /dev/null";
        assert_eq!(settings(&[]).unwrap().arguments(5).join(" "), libxls);
        let more = [("sandbox", "on,spawn=deny"), ("user", "qdisk")];
        assert_eq!(
            settings(&more).unwrap().arguments(5).join(" "),
            format!("{libxls} -sandbox on,spawn=deny -runas qdisk")
        );
    }

    #[test]
    fn image_format_must_be_served() {
        let image = |params: &str, values: &[(&str, &str)]| {
            let device = Device::sample("qdisk", &[("params", params)]);
            settings(values)
                .unwrap()
                .image(&device)
                .map(|image| (image.format.to_owned(), image.path.to_owned()))
        };
        let is = |format: &str, path: &str| Ok((format.to_owned(), path.to_owned()));
        assert_eq!(image("aio:/srv/a.img", &[]), is("aio", "/srv/a.img"));
        assert_eq!(image("qcow2:/srv/a.qcow2", &[]), is("qcow2", "/srv/a.qcow2"));
        for odd in ["/srv/a.img", ":/srv/a.img", "vhd:/srv/a.vhd", "nbd:/srv/a", "aio:a.img"] {
            assert!(image(odd, &[]).is_err(), "{odd}");
        }
        let more = [("formats", "vhd")];
        assert_eq!(image("vhd:/srv/a.vhd", &more), is("vhd", "/srv/a.vhd"));
        assert!(image("aio:/srv/a.img", &more).is_err());
    }

    #[test]
    fn timeout_is_a_number() {
        assert_eq!(settings(&[]).unwrap().timeout, TIMEOUT);
        assert_eq!(settings(&[("timeout", "500")]).unwrap().timeout, 500);
        assert!(settings(&[("timeout", "long")]).is_err());
    }
}
