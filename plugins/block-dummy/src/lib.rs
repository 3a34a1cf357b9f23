//! Handler for disks `dummy:FILE`: attaches a loop device to a file, as `/etc/xen/scripts/block-dummy` does on `add`.
//!
//! | node read | meaning |
//! | --- | --- |
//! | `params` | `dummy:` and the path of a file |
//! | `mode` | as for any disk |
//!
//! Unlike the script it checks for other users of the file, and accepts a path with a colon or a space.

use xenplug_sdk::{Connection, Description, Device, Error, Handler, block::SourceKind, disk::Disk};

/// Handler for files with the prefix `dummy:`, which only tests use.
struct Dummy;

impl Handler for Dummy {
    fn describe() -> Description {
        Description::new("dummy:FILE, a file on a loop device")
            .kind("vbd")
            .script("block-dummy")
    }

    fn connect(device: &Device) -> Result<Connection, Error> {
        let disk = Disk::at(device, path(device.required("params")?)?)?;
        let source = disk.open()?;
        if source.facts().kind != SourceKind::File {
            return Err(Error::invalid("params", format!("{} is not a file", disk.path)));
        }
        source.claim(disk.sharing()).map_err(|error| error.of("params"))?;
        disk.publish(&source)
    }
}

/// Returns the path in `dummy:PATH`.
fn path(params: &str) -> Result<&str, Error> {
    params
        .strip_prefix("dummy:")
        .filter(|path| path.starts_with('/'))
        .ok_or_else(|| Error::invalid("params", format!("`{params}` is not `dummy:` and the path of a file")))
}

xenplug_sdk::export!(Dummy);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_dummy_and_a_path() {
        assert_eq!(path("dummy:/srv/a b:c.img"), Ok("/srv/a b:c.img"));
        for odd in [
            "/srv/a.img",
            "dummy:",
            "dummy",
            "dummy:a.img",
            "aio:/srv/a.img",
            "DUMMY:/a",
        ] {
            assert!(path(odd).is_err(), "{odd}");
        }
    }
}
