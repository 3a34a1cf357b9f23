//! The toolstack's snapshots and writes, each within a transaction.

use std::{fs::File, io, io::Read};

use xenplug_hotplug::{
    Class, Request, RequestId, RequestPath, State, driver_domain,
    request::VERSION,
    toolstack::{ToolstackAction, ToolstackSnapshot},
};
use xenplug_xenbus::{DevId, DomId};
use xenplug_xenstore::{Error, Path, Permission, Transaction};

use crate::Spec;

/// Device that an operation is about.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    pub(crate) path: RequestPath,
    /// Request to write; `None` for a detach.
    pub(crate) to_write: Option<(&'a Spec, RequestId)>,
    /// Value of `force` to write.
    pub(crate) force: bool,
}

/// Makes a request's id.
pub(crate) fn random_id() -> io::Result<RequestId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(RequestId(
        bytes.into_iter().fold(0, |id, byte| (id << 8) | u128::from(byte)),
    ))
}

impl Device<'_> {
    pub(crate) async fn snapshot(&self, transaction: &Transaction) -> Result<ToolstackSnapshot, Error> {
        let Self { path, .. } = self;
        Ok(ToolstackSnapshot {
            request: self.request(transaction).await?,
            vm: vm(transaction, path.frontend).await?,
            frontend: text(transaction, &path.frontend_path()).await?.is_some(),
            driver_domain: is_prepared(transaction, path.backend).await?,
        })
    }

    async fn request(&self, transaction: &Transaction) -> Result<Option<Request>, Error> {
        if text(transaction, &self.path.to_string()).await?.is_none() {
            return Ok(None);
        }
        let node = async |name| {
            let value = text(transaction, &self.path.node(name)).await?;
            Ok::<_, Error>(value.unwrap_or_default())
        };
        Ok(Some(Request {
            // An invalid id matches none of this toolstack's.
            id: node("id").await?.parse().unwrap_or(RequestId(0)),
            vm: node("vm").await?,
            state: State::parse(&node("state").await?),
            force: node("force").await? == "1",
            error: node("error").await?,
        }))
    }

    pub(crate) async fn apply(&self, transaction: &Transaction, action: &ToolstackAction) -> Result<(), Error> {
        match action {
            ToolstackAction::Create => self.create(transaction).await,
            ToolstackAction::RequestDetach => {
                self.write(transaction, "force", if self.force { "1" } else { "0" })
                    .await?;
                self.write(transaction, "state", State::Detaching.as_str()).await
            }
            ToolstackAction::Force => self.write(transaction, "force", "1").await,
            ToolstackAction::Remove => self.remove(transaction).await,
        }
    }

    async fn create(&self, transaction: &Transaction) -> Result<(), Error> {
        let Some((spec, id)) = self.to_write else { return Ok(()) };
        let RequestPath {
            backend,
            frontend,
            devid,
            ..
        } = self.path;
        let at: Path = self.path.to_string().parse()?;
        let vm = vm(transaction, frontend).await?.unwrap_or_default();
        transaction.mkdir(&at).await?;
        transaction.set_permissions(&at, &readable_by(backend)).await?;
        for (name, value) in [
            ("version", VERSION.to_string()),
            ("id", id.to_string()),
            ("vm", vm),
            ("kind", spec.kind().to_string()),
            ("force", "0".to_owned()),
        ] {
            self.write(transaction, name, &value).await?;
        }
        for (name, value) in spec.backend_nodes(devid) {
            self.write(transaction, name, &value).await?;
        }
        for (name, value) in spec.frontend_nodes(devid) {
            self.write(transaction, &format!("frontend/{name}"), &value).await?;
        }
        // This grants the driver domain this one frontend. A guest's kernel ignores it until it has a `state`.
        let front: Path = self.path.frontend_path().parse()?;
        transaction.write(&front, id.to_string()).await?;
        let made_by = [Permission::none(frontend.0), Permission::both(backend.0)];
        transaction.set_permissions(&front, &made_by).await?;
        for (name, value) in [("error", ""), ("state", State::Requested.as_str())] {
            self.write(transaction, name, value).await?;
            transaction
                .set_permissions(&at.join(name)?, &writable_by(backend))
                .await?;
        }
        Ok(())
    }

    async fn remove(&self, transaction: &Transaction) -> Result<(), Error> {
        let at: Path = self.path.to_string().parse()?;
        let id = text(transaction, &self.path.node("id")).await?;
        transaction.rm(&at).await?;
        if let Some(guest) = at.parent()
            && transaction.directory(&guest).await?.is_empty()
        {
            transaction.rm(&guest).await?;
        }
        let front = self.path.frontend_path();
        let made_for = text(transaction, &front).await?;
        if made_for.is_some() && made_for == id {
            transaction.rm(&front.parse()?).await?;
        }
        Ok(())
    }

    async fn write(&self, transaction: &Transaction, name: &str, value: &str) -> Result<(), Error> {
        transaction.write(&self.path.node(name).parse()?, value).await
    }
}

/// Creates the nodes of a driver domain. Returns `false` if there is no such domain.
pub(crate) async fn prepare(transaction: &Transaction, domain: DomId) -> Result<bool, Error> {
    let Some(vm) = driver_domain_vm(transaction, domain).await? else {
        return Ok(false);
    };
    let at: Path = driver_domain(domain).parse()?;
    let earlier = text(transaction, &format!("{at}/vm")).await?;
    if earlier.is_some_and(|earlier| earlier != vm) {
        // The requests of an earlier domain with this id are void.
        transaction.rm(&at).await?;
    }
    for directory in ["/hotplug", "/hotplug/domain"] {
        let directory: Path = directory.parse()?;
        transaction.mkdir(&directory).await?;
        transaction.set_permissions(&directory, &[Permission::none(0)]).await?;
    }
    for (name, value) in [("", None), ("/vm", Some(vm)), ("/toolstack", Some(VERSION.to_string()))] {
        let node: Path = format!("{at}{name}").parse()?;
        match value {
            Some(value) => transaction.write(&node, value).await?,
            None => transaction.mkdir(&node).await?,
        }
        transaction.set_permissions(&node, &readable_by(domain)).await?;
    }
    for class in [Class::Vbd, Class::Vif] {
        let node = at.join(class.as_str())?;
        transaction.mkdir(&node).await?;
        transaction.set_permissions(&node, &readable_by(domain)).await?;
    }
    let daemon = at.join("daemon")?;
    transaction.mkdir(&daemon).await?;
    transaction.set_permissions(&daemon, &writable_by(domain)).await?;
    let backend: Path = format!("/local/domain/{domain}/backend").parse()?;
    transaction.mkdir(&backend).await?;
    transaction
        .set_permissions(&backend, &[Permission::none(domain.0)])
        .await?;
    Ok(true)
}

/// Returns the lowest device number that the guest does not use.
pub(crate) async fn free_devid(transaction: &Transaction, class: Class, guest: DomId) -> Result<DevId, Error> {
    let at: Path = format!("/local/domain/{guest}/device/{class}").parse()?;
    let taken = match transaction.directory(&at).await {
        Err(error) if error.is_not_found() => Vec::new(),
        names => names?,
    };
    let free = (0..).map(DevId).find(|devid| !taken.contains(&devid.to_string()));
    Ok(free.unwrap_or(DevId(0)))
}

/// Tells whether the domain exists and is the one that was prepared.
async fn is_prepared(transaction: &Transaction, domain: DomId) -> Result<bool, Error> {
    let prepared = text(transaction, &format!("{}/vm", driver_domain(domain))).await?;
    Ok(prepared.is_some() && prepared == driver_domain_vm(transaction, domain).await?)
}

/// Returns the `vm` node that distinguishes a driver domain from the next with its id. dom0 has none and no successor.
async fn driver_domain_vm(transaction: &Transaction, domain: DomId) -> Result<Option<String>, Error> {
    let vm = vm(transaction, domain).await?;
    Ok(vm.or_else(|| (domain == DomId(0)).then(String::new)))
}

/// Reads a domain's `vm` node. A save or a local migration appends "-1" to it for a moment
/// (tools/hotplug/Linux/block-common.sh, `same_vm`).
async fn vm(transaction: &Transaction, domain: DomId) -> Result<Option<String>, Error> {
    let vm = text(transaction, &format!("/local/domain/{domain}/vm")).await?;
    Ok(vm.map(|vm| vm.strip_suffix("-1").map_or_else(|| vm.clone(), str::to_owned)))
}

/// Reads a node, or `None` if it does not exist.
async fn text(transaction: &Transaction, path: &str) -> Result<Option<String>, Error> {
    match transaction.read(&path.parse()?).await {
        Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn readable_by(domain: DomId) -> [Permission; 2] {
    [Permission::none(0), Permission::read(domain.0)]
}

fn writable_by(domain: DomId) -> [Permission; 2] {
    [Permission::none(0), Permission::both(domain.0)]
}
