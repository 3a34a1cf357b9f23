//! The toolstack's looks at the store, and what it writes there; each within a transaction.

use std::{fs::File, io, io::Read};

use xenplug_hotplug::{
    Class, Request, RequestId, RequestPath, State, driver_domain,
    request::VERSION,
    toolstack::{ToolstackAction, ToolstackSnapshot},
};
use xenplug_xenbus::{DevId, DomId};
use xenplug_xenstore::{Error, Path, Permission, Transaction};

use crate::Spec;

/// A device's request, as this toolstack would write it.
#[derive(Debug)]
pub(crate) struct Device<'a> {
    pub(crate) path: RequestPath,
    /// What to write; nothing for one that is only detached.
    pub(crate) asked: Option<(&'a Spec, RequestId)>,
    /// What `force` is to say.
    pub(crate) force: bool,
}

/// A request's id.
pub(crate) fn random_id() -> io::Result<RequestId> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(RequestId(
        bytes.into_iter().fold(0, |id, byte| (id << 8) | u128::from(byte)),
    ))
}

impl Device<'_> {
    /// What is there.
    pub(crate) async fn look(&self, transaction: &Transaction) -> Result<ToolstackSnapshot, Error> {
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
            // One that says nothing sensible is nobody's of ours.
            id: node("id").await?.parse().unwrap_or(RequestId(0)),
            vm: node("vm").await?,
            state: State::parse(&node("state").await?),
            force: node("force").await? == "1",
            error: node("error").await?,
        }))
    }

    /// Does it.
    pub(crate) async fn act(&self, transaction: &Transaction, action: &ToolstackAction) -> Result<(), Error> {
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
        let Some((spec, id)) = self.asked else { return Ok(()) };
        let RequestPath {
            backend,
            frontend,
            devid,
            ..
        } = self.path;
        let at: Path = self.path.to_string().parse()?;
        let vm = vm(transaction, frontend).await?.unwrap_or_default();
        transaction.mkdir(&at).await?;
        transaction.set_permissions(&at, &read_by(backend)).await?;
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
        // The right to make this one frontend. A guest's kernel looks at it once there is a `state` in it.
        let front: Path = self.path.frontend_path().parse()?;
        transaction.write(&front, id.to_string()).await?;
        let made_by = [Permission::none(frontend.0), Permission::both(backend.0)];
        transaction.set_permissions(&front, &made_by).await?;
        for (name, value) in [("error", ""), ("state", State::Requested.as_str())] {
            self.write(transaction, name, value).await?;
            transaction
                .set_permissions(&at.join(name)?, &written_by(backend))
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

/// Makes what a driver domain needs. `false` if there is no such domain.
pub(crate) async fn prepare(transaction: &Transaction, domain: DomId) -> Result<bool, Error> {
    let Some(vm) = of_driver_domain(transaction, domain).await? else {
        return Ok(false);
    };
    let at: Path = driver_domain(domain).parse()?;
    let earlier = text(transaction, &format!("{at}/vm")).await?;
    if earlier.is_some_and(|earlier| earlier != vm) {
        // Another domain of the same number: what it was asked for has gone with it.
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
        transaction.set_permissions(&node, &read_by(domain)).await?;
    }
    for class in [Class::Vbd, Class::Vif] {
        let node = at.join(class.as_str())?;
        transaction.mkdir(&node).await?;
        transaction.set_permissions(&node, &read_by(domain)).await?;
    }
    let daemon = at.join("daemon")?;
    transaction.mkdir(&daemon).await?;
    transaction.set_permissions(&daemon, &written_by(domain)).await?;
    let backend: Path = format!("/local/domain/{domain}/backend").parse()?;
    transaction.mkdir(&backend).await?;
    transaction
        .set_permissions(&backend, &[Permission::none(domain.0)])
        .await?;
    Ok(true)
}

/// The lowest number that no device of the guest's has.
pub(crate) async fn free_devid(transaction: &Transaction, class: Class, guest: DomId) -> Result<DevId, Error> {
    let at: Path = format!("/local/domain/{guest}/device/{class}").parse()?;
    let taken = match transaction.directory(&at).await {
        Err(error) if error.is_not_found() => Vec::new(),
        names => names?,
    };
    let free = (0..).map(DevId).find(|devid| !taken.contains(&devid.to_string()));
    Ok(free.unwrap_or(DevId(0)))
}

/// Whether the domain is there, and the one that was prepared.
async fn is_prepared(transaction: &Transaction, domain: DomId) -> Result<bool, Error> {
    let prepared = text(transaction, &format!("{}/vm", driver_domain(domain))).await?;
    Ok(prepared.is_some() && prepared == of_driver_domain(transaction, domain).await?)
}

/// What tells a driver domain from the next of its number: its `vm` node. dom0 has none, and there is no next.
async fn of_driver_domain(transaction: &Transaction, domain: DomId) -> Result<Option<String>, Error> {
    let vm = vm(transaction, domain).await?;
    Ok(vm.or_else(|| (domain == DomId(0)).then(String::new)))
}

/// A domain's `vm` node. A save or a local migration appends "-1" to it for a moment
/// (tools/hotplug/Linux/block-common.sh, `same_vm`).
async fn vm(transaction: &Transaction, domain: DomId) -> Result<Option<String>, Error> {
    let vm = text(transaction, &format!("/local/domain/{domain}/vm")).await?;
    Ok(vm.map(|vm| vm.strip_suffix("-1").map_or_else(|| vm.clone(), str::to_owned)))
}

/// A node's value; none if there is no such node.
async fn text(transaction: &Transaction, path: &str) -> Result<Option<String>, Error> {
    match transaction.read(&path.parse()?).await {
        Ok(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_by(domain: DomId) -> [Permission; 2] {
    [Permission::none(0), Permission::read(domain.0)]
}

fn written_by(domain: DomId) -> [Permission; 2] {
    [Permission::none(0), Permission::both(domain.0)]
}
