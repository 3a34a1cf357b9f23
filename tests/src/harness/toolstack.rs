//! Played libxl: writes the nodes of `xl` for a domain and its devices, and waits as it does.
//!
//! It follows libxl_disk.c, libxl_nic.c and libxl_device.c (`libxl__device_generic_add`,
//! `libxl__initiate_device_generic_remove`) of Xen 4.17.

use std::{fmt, path::Path, time::Duration};

use anyhow::{Result, bail};

use crate::store::{self, Store};

/// Kind of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A disk.
    Vbd,
    /// A disk that tapdisk serves.
    Vbd3,
    /// A SCSI device.
    Vscsi,
    /// A vif.
    Vif,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Vbd => "vbd",
            Kind::Vbd3 => "vbd3",
            Kind::Vscsi => "vscsi",
            Kind::Vif => "vif",
        })
    }
}

impl Kind {
    /// Returns the script that runs for the kind unless the device names another.
    pub fn script(self) -> &'static str {
        match self {
            Kind::Vbd => "block",
            Kind::Vbd3 => "block-tap",
            Kind::Vscsi => "vscsi",
            Kind::Vif => "vif-bridge",
        }
    }

    /// Returns the kind of the frontend: the guest of a disk does not see which backend serves it.
    fn frontend(self) -> Kind {
        match self {
            Kind::Vbd3 => Kind::Vbd,
            other => other,
        }
    }
}

/// Device of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device {
    /// Domain of the backend.
    pub backend: u16,
    /// Kind of the backend.
    pub kind: Kind,
    /// Domain of the frontend.
    pub frontend: u16,
    /// Device number: `51712 + 16 * n` for the `n`th disk, `n` for the `n`th vif.
    pub devid: u32,
}

impl Device {
    /// Returns the `index`th disk of a domain: `xvda`, `xvdb`, ... up to `xvdp`, and extended numbers from there
    /// (docs/man/xen-vbd-interface.7).
    pub const fn disk(frontend: u16, index: u32) -> Self {
        let devid = if index < 16 {
            (202 << 8) | (index << 4)
        } else {
            (1 << 28) | (index << 8)
        };
        Self {
            backend: 0,
            kind: Kind::Vbd,
            frontend,
            devid,
        }
    }

    /// Returns the `index`th disk of a domain, served by tapdisk.
    pub const fn tap(frontend: u16, index: u32) -> Self {
        Self {
            kind: Kind::Vbd3,
            ..Self::disk(frontend, index)
        }
    }

    /// Returns the SCSI device of a domain.
    pub const fn scsi(frontend: u16) -> Self {
        Self {
            backend: 0,
            kind: Kind::Vscsi,
            frontend,
            devid: 0,
        }
    }

    /// Returns the `index`th vif of a domain.
    pub const fn vif(frontend: u16, index: u32) -> Self {
        Self {
            backend: 0,
            kind: Kind::Vif,
            frontend,
            devid: index,
        }
    }

    /// Moves the backend to another domain than dom0.
    pub const fn served_by(mut self, backend: u16) -> Self {
        self.backend = backend;
        self
    }

    /// Returns true for a vif, whose script runs with `online` rather than `add`.
    pub const fn is_vif(&self) -> bool {
        matches!(self.kind, Kind::Vif)
    }

    /// Finds the device in a path of the backend's domain, such as `/local/domain/1/backend/vbd/3/51712/state`, or
    /// dom0's `backend/vbd/3/51712/state`.
    pub fn of_path(path: &str) -> Option<Self> {
        let (above, below) = path.split_once("backend/")?;
        let mut words = below.split('/');
        let kind = match words.next()? {
            "vbd" => Kind::Vbd,
            "vbd3" => Kind::Vbd3,
            "vscsi" => Kind::Vscsi,
            "vif" => Kind::Vif,
            _ => return None,
        };
        Some(Self {
            backend: match above.strip_prefix("/local/domain/") {
                Some(domain) => domain.trim_end_matches('/').parse().ok()?,
                None => 0,
            },
            kind,
            frontend: words.next()?.parse().ok()?,
            devid: words.next()?.parse().ok()?,
        })
    }

    /// Returns the backend directory.
    pub fn backend(&self) -> String {
        format!(
            "/local/domain/{}/backend/{}/{}/{}",
            self.backend, self.kind, self.frontend, self.devid
        )
    }

    /// Returns the frontend directory.
    pub fn frontend(&self) -> String {
        let kind = self.kind.frontend();
        format!("/local/domain/{}/device/{kind}/{}", self.frontend, self.devid)
    }

    /// Returns the toolstack's own directory of the device, which neither guest nor driver domain can write.
    pub fn copy(&self) -> String {
        format!("/libxl/{}/device/{}/{}", self.frontend, self.kind, self.devid)
    }

    /// Returns the name that netback gives a vif's interface.
    pub fn link(&self) -> String {
        format!("vif{}.{}", self.frontend, self.devid)
    }

    /// Returns the name that [`super::Kernel`] gives the guest's end of the vif.
    pub fn guest_link(&self) -> String {
        format!("guest{}.{}", self.frontend, self.devid)
    }
}

/// Nodes that `xl` writes into a backend directory. A test may change or remove some.
#[derive(Clone, Debug)]
pub struct Nodes(Vec<(&'static str, Vec<u8>)>);

impl Nodes {
    /// Returns the value of a node.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let found = self.0.iter().find(|(other, _)| *other == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// Sets a node.
    pub fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.0.retain(|(other, _)| *other != name);
        self.0.push((name, value.into()));
        self
    }

    /// Removes a node.
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(other, _)| *other != name);
        self
    }
}

/// Disk, as in `xl`'s `phy:PARAMS,xvda,MODE`.
pub struct Disk;

impl Disk {
    /// Returns the nodes of a writable disk on a file or block device, with the script `/etc/xen/scripts/block`.
    pub fn on(params: &Path) -> Nodes {
        use std::os::unix::ffi::OsStrExt;
        Nodes(vec![])
            .with("params", params.as_os_str().as_bytes())
            .with("script", "/etc/xen/scripts/block")
            .with("removable", "0")
            .with("bootable", "1")
            .with("dev", "xvda")
            .with("type", "phy")
            .with("mode", "w")
            .with("device-type", "disk")
            .with("discard-enable", "1")
            .with("specification", "xen")
    }
}

/// A SCSI device.
pub struct Scsi;

impl Scsi {
    /// Returns the nodes of a host's SCSI device, with the script `/etc/xen/scripts/vscsi`.
    pub fn of(device: &str) -> Nodes {
        Nodes(vec![])
            .with("script", "/etc/xen/scripts/vscsi")
            .with("feature-host", "0")
            .with("p-dev", device)
    }
}

/// Vif, as in `xl`'s `bridge=BRIDGE`.
pub struct Vif;

impl Vif {
    /// Returns the nodes of a vif on a bridge, with the script `/etc/xen/scripts/vif-bridge`.
    pub fn on(bridge: &str) -> Nodes {
        Nodes(vec![])
            .with("script", "/etc/xen/scripts/vif-bridge")
            .with("mac", "00:16:3e:01:02:03")
            .with("bridge", bridge)
            .with("handle", "0")
            .with("type", "vif")
            .with("hotplug-status", "")
    }
}

/// Played libxl, on a connection of its own.
#[derive(Debug)]
pub struct Toolstack {
    store: Store,
    built: u32,
}

impl Toolstack {
    /// Creates a toolstack on a connection.
    pub fn new(store: Store) -> Self {
        Self { store, built: 0 }
    }

    /// Returns the toolstack's connection.
    pub fn store(&mut self) -> &mut Store {
        &mut self.store
    }

    /// Builds a domain: creates its directories and its `vm` with a unique UUID, and introduces it.
    pub fn build(&mut self, domid: u16) -> Result<()> {
        self.built += 1;
        let uuid = format!("{:08x}-0000-4000-8000-{domid:012x}", self.built);
        self.store.transaction(|store| {
            let home = format!("/local/domain/{domid}");
            let vm = format!("/vm/{uuid}");
            let readable = ["n0".to_owned(), format!("r{domid}")];
            for directory in [&home, &vm] {
                store.make(directory)?;
                store.permit(directory, &readable)?;
            }
            store.write(&format!("{home}/vm"), &vm)?;
            store.write(&format!("{home}/name"), format!("guest-{domid}"))?;
            store.write(&format!("{home}/domid"), domid.to_string())?;
            store.write(&format!("{vm}/uuid"), &uuid)?;
            store.write(&format!("{vm}/name"), format!("guest-{domid}"))
        })?;
        Ok(self.store.introduce(domid)?)
    }

    /// Adds a device in one transaction, with its backend in state 1.
    pub fn attach(&mut self, device: &Device, nodes: &Nodes) -> Result<()> {
        let Device {
            backend: server,
            frontend,
            devid,
            ..
        } = *device;
        let (backend, home, copy) = (device.backend(), device.frontend(), device.copy());
        let owned_by_frontend = [format!("n{frontend}"), format!("r{server}")];
        let owned_by_backend = [format!("n{server}"), format!("r{frontend}")];
        let mut front = vec![
            ("backend", backend.clone()),
            ("backend-id", server.to_string()),
            ("state", "1".to_owned()),
        ];
        match device.kind {
            Kind::Vbd | Kind::Vbd3 => front.extend([
                ("virtual-device", devid.to_string()),
                ("device-type", "disk".to_owned()),
            ]),
            Kind::Vscsi => {}
            Kind::Vif => front.extend([("handle", devid.to_string()), ("mac", "00:16:3e:01:02:03".to_owned())]),
        }
        self.store.transaction(|store| {
            store.remove(&copy)?;
            store.write(&format!("{copy}/frontend"), &home)?;
            store.write(&format!("{copy}/backend"), &backend)?;
            write_all(
                store,
                &home,
                &owned_by_frontend,
                front.iter().map(|(name, value)| (*name, value.as_bytes())),
            )?;
            let own = [("frontend", home.clone()), ("frontend-id", frontend.to_string())];
            let own = own.iter().map(|(name, value)| (*name, value.as_bytes()));
            let state = [("online", b"1".as_slice()), ("state", b"1")];
            let given = nodes.0.iter().map(|(name, value)| (*name, value.as_slice()));
            write_all(
                store,
                &backend,
                &owned_by_backend,
                own.chain(state).chain(given.clone()),
            )?;
            given
                .into_iter()
                .try_for_each(|(name, value)| store.write(&format!("{copy}/{name}"), value))
        })?;
        Ok(())
    }

    /// Requests the removal of a device: `online=0`, and `state=5` unless it is closed already.
    pub fn detach(&mut self, device: &Device) -> Result<()> {
        let backend = device.backend();
        self.store.transaction(|store| {
            let Some(state) = store.find(&format!("{backend}/state"))? else {
                return Ok(());
            };
            store.write(&format!("{backend}/online"), "0")?;
            if state != "6" {
                store.write(&format!("{backend}/state"), "5")
            } else {
                Ok(())
            }
        })?;
        Ok(())
    }

    /// Waits until the driver domain has removed the backend directory, and removes the device's other nodes.
    ///
    /// libxl waits 10 s. An error names the state after that time, and nothing is removed.
    pub fn finish(&mut self, device: &Device, within: Duration) -> Result<()> {
        let backend = device.backend();
        if let Err(state) = self
            .store
            .wait(&format!("{backend}/state"), within, |state| state.is_none())?
        {
            bail!("{backend} is still there after {within:?}, in state {state:?}");
        }
        self.forget(device)
    }

    /// Removes all nodes of a device at once, as after a failed attach or with `xl destroy`.
    pub fn forget(&mut self, device: &Device) -> Result<()> {
        self.store.transaction(|store| {
            for path in [device.backend(), device.frontend(), device.copy()] {
                store.remove(&path)?;
            }
            // libxl removes empty parents, which a driver domain cannot remove (libxl__xs_path_cleanup).
            for path in [device.backend(), device.copy()] {
                let mut path = path.as_str();
                for _ in 0..2 {
                    path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    if store.find(path)?.is_none() || !store.children(path)?.is_empty() {
                        break;
                    }
                    store.remove(path)?;
                }
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Removes a domain that has ended, and releases it. Its backend directories are left to the driver domain.
    pub fn bury(&mut self, domid: u16) -> Result<()> {
        let vm = self.store.find(&format!("/local/domain/{domid}/vm"))?;
        for path in [
            Some(format!("/local/domain/{domid}")),
            Some(format!("/libxl/{domid}")),
            vm,
        ]
        .into_iter()
        .flatten()
        {
            self.store.remove(&path)?;
        }
        match self.store.release(domid) {
            // xenstored had noticed the end by itself.
            Err(error) if error.is("ENOENT") => Ok(()),
            done => Ok(done?),
        }
    }
}

fn write_all<'a>(
    store: &mut Store,
    directory: &str,
    permissions: &[String],
    nodes: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), store::Error> {
    store.remove(directory)?;
    store.make(directory)?;
    store.permit(directory, permissions)?;
    // Nodes inherit their directory's permissions.
    for (name, value) in nodes {
        store.write(&format!("{directory}/{name}"), value)?;
    }
    Ok(())
}
