//! `block`: files and block devices within the grant, the claims on them, and loop devices.

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use wasmtime::component::Resource;
use xenplug_system::{
    Block,
    block::{LoopDevice, LoopOptions, Source, SourceIdentity},
    grant::{Access, BlockGrant},
    lock,
};
use xenplug_xenbus::DeviceKey;

use super::CallError;
use crate::{
    Claim, Effect, Sharing,
    bindings::xen::hotplug::block,
    event::{Context, Event},
};

/// How often a path is looked for that is to come.
const MOMENT: Duration = Duration::from_millis(20);

/// How long a script may take that has the lock under which disks are checked.
const LOCKED: Duration = Duration::from_secs(8);

/// A source that the guest has open. The machine closes it when the guest, or the event, is done with it.
pub struct OpenSource {
    source: Source,
    access: Access,
    machine: Arc<dyn Block>,
}

impl Drop for OpenSource {
    fn drop(&mut self) {
        self.machine.close(self.source.id);
    }
}

/// A loop device that the device holds.
pub struct HeldLoop(LoopDevice);

fn grant(context: &Context) -> Result<&BlockGrant, CallError> {
    // The interface is linked only when it is granted.
    context
        .grants
        .block
        .as_ref()
        .ok_or_else(|| CallError::denied("block is not granted"))
}

impl block::Host for Event {}

impl Event {
    fn open_source(&mut self, path: &str, access: block::Access) -> Result<Resource<OpenSource>, CallError> {
        let access = match access {
            block::Access::ReadOnly => Access::ReadOnly,
            block::Access::ReadWrite => Access::ReadWrite,
        };
        let machine = Arc::clone(&self.context.system.block);
        let source = machine.open(grant(&self.context)?, path, access)?;
        Ok(self.table.push(OpenSource {
            source,
            access,
            machine,
        })?)
    }
}

impl block::HostSource for Event {
    fn open(&mut self, path: String, access: block::Access) -> Result<Resource<OpenSource>, CallError> {
        self.call()?;
        self.open_source(&path, access)
    }

    fn open_when_there(
        &mut self,
        path: String,
        access: block::Access,
        milliseconds: u32,
    ) -> Result<Resource<OpenSource>, CallError> {
        self.call()?;
        let until = Instant::now() + Duration::from_millis(milliseconds.into());
        loop {
            match self.open_source(&path, access) {
                Err(CallError::Guest(block::Error::NotFound(_))) if Instant::now() < until => sleep(MOMENT),
                result => return result,
            }
            self.may_go_on().map_err(|stop| CallError::Trap(stop.into()))?;
        }
    }

    fn facts(&mut self, this: Resource<OpenSource>) -> wasmtime::Result<block::SourceFacts> {
        super::must_go_on(self)?;
        let facts = &self.table.get(&this)?.source.facts;
        let (kind, device) = match facts.identity {
            SourceIdentity::File { .. } => (block::SourceKind::File, None),
            SourceIdentity::BlockDevice { major, minor } => (
                block::SourceKind::BlockDevice,
                Some(block::DeviceNumber { major, minor }),
            ),
        };
        Ok(block::SourceFacts {
            kind,
            path: facts.path.display().to_string(),
            size: facts.size,
            device,
            diskseq: facts.diskseq,
            read_only: facts.read_only,
        })
    }

    fn claim(&mut self, this: Resource<OpenSource>, sharing: block::Sharing) -> Result<(), CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let open = self.table.get(&this)?;
        let (sharing, access) = match sharing {
            block::Sharing::Readers => (Sharing::Readers, Access::ReadOnly),
            block::Sharing::Alone => (Sharing::Alone, Access::ReadWrite),
            block::Sharing::Unchecked => (Sharing::Unchecked, Access::ReadOnly),
        };
        let source = open.source.clone();
        let path = source.facts.path.display().to_string();
        // The scripts check and publish under this lock: until it is given back, when this device is published, what is
        // found here stays true.
        let patience = LOCKED.min(self.deadline.saturating_duration_since(Instant::now()));
        let subject = self.subject()?;
        subject.resources.lock(&context.system.locks, lock::BLOCK, patience)?;
        if sharing != Sharing::Unchecked
            && let Some(user) = context.system.block.used_by(&source, access, &[])?
        {
            return Err(CallError::Guest(block::Error::Busy(format!(
                "{path} is in use by {user}"
            ))));
        }
        let source = source.facts.identity;
        let (key, vms) = (subject.device.key.clone(), subject.device.vms.clone());
        let claim = Claim {
            device: key,
            vms,
            sharing,
        };
        let used = |other: DeviceKey| {
            xenplug_system::Error::Busy(format!(
                "{path} is used by domain {} (as {other}){}",
                other.frontend,
                if sharing == Sharing::Alone { "" } else { " for writing" },
            ))
        };
        // A file shows its users by itself: they have loop devices on it.
        if let SourceIdentity::BlockDevice { major, minor } = source {
            let users = context.shared.store.foreign_users(major, minor);
            let users = users.map_err(|unknown| CallError::Guest(block::Error::Unavailable(unknown)))?;
            if let Some(user) = users.into_iter().find(|user| user.forbids(&claim)) {
                return Err(used(user.device).into());
            }
        }
        subject.resources.acquire(Effect::Claim { source, sharing }, || {
            context.shared.claims.acquire(source, claim.clone()).map_err(used)?;
            Ok((Effect::Claim { source, sharing }, ()))
        })?;
        // A guest and its stub domain, say, share a tapdisk, which must not be started twice.
        self.wait(|| (!context.shared.claims.is_ahead(source, &claim)).then_some(()))
    }

    fn attach_loop(
        &mut self,
        this: Resource<OpenSource>,
        options: block::LoopOptions,
    ) -> Result<Resource<HeldLoop>, CallError> {
        self.call()?;
        let context = Arc::clone(&self.context);
        let open = self.table.get(&this)?;
        if open.access == Access::ReadOnly && !options.read_only {
            return Err(CallError::denied(format!(
                "{} was opened read-only and cannot have a writable loop device",
                open.source.facts.path.display()
            )));
        }
        let source = open.source.clone();
        let grant = grant(&context)?;
        let resources = &mut self.subject()?.resources;
        let tag = resources.tag();
        let options = LoopOptions {
            read_only: options.read_only,
            direct_io: options.direct_io,
            tag: tag.clone(),
        };
        let device = resources.acquire(
            Effect::Loop {
                tag: tag.clone(),
                device: None,
            },
            || {
                let device = context.system.block.attach_loop(grant, &source, &options)?;
                Ok((
                    Effect::Loop {
                        tag,
                        device: Some(device.clone()),
                    },
                    device,
                ))
            },
        )?;
        Ok(self.table.push(HeldLoop(device))?)
    }

    fn drop(&mut self, this: Resource<OpenSource>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl block::HostLoopDevice for Event {
    fn path(&mut self, this: Resource<HeldLoop>) -> wasmtime::Result<String> {
        super::must_go_on(self)?;
        Ok(format!("/dev/loop{}", self.table.get(&this)?.0.number))
    }

    fn device(&mut self, this: Resource<HeldLoop>) -> wasmtime::Result<block::DeviceNumber> {
        super::must_go_on(self)?;
        let device = &self.table.get(&this)?.0;
        Ok(block::DeviceNumber {
            major: device.major,
            minor: device.minor,
        })
    }

    fn drop(&mut self, this: Resource<HeldLoop>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
