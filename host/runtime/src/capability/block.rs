//! `block`: files and block devices within the grant, the claims on them, and loop devices.

use std::{
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use wasmtime::component::Resource;
use xenplug_system::{block::SourceIdentity, grant::Access, lock};

use crate::{
    bindings::xen::hotplug::block,
    call_error::CallError,
    event::Event,
    handles::{HeldLoop, OpenSource},
    resource::{Claim, Loop},
    shared::Sharing,
};

/// Interval between looks for a path that is to come. A device node can be given by a symbolic link of udev's and
/// within any granted directory, for which the kernel has no one event to wait for.
const POLL: Duration = Duration::from_millis(20);

/// The time that a script may hold the lock under which disks are checked.
const SCRIPT_LIMIT: Duration = Duration::from_secs(8);

impl block::Host for Event {}

impl Event {
    fn open_source(&mut self, path: &str, access: block::Access) -> Result<Resource<OpenSource>, CallError> {
        let access = match access {
            block::Access::ReadOnly => Access::ReadOnly,
            block::Access::ReadWrite => Access::ReadWrite,
        };
        let block = Arc::clone(&self.context.platform.block);
        let source = block.open(self.context.access().block()?, path, access)?;
        Ok(self.table.push(OpenSource::new(source, access, block))?)
    }

    /// Keeps the original scripts out until the device is published or has failed.
    fn lock_out_scripts(&mut self) -> Result<(), CallError> {
        let context = Arc::clone(&self.context);
        let deadline = self.deadline.min(Instant::now() + SCRIPT_LIMIT);
        let subject = self.subject()?;
        if subject.script_lock.is_none() {
            subject.script_lock = Some(context.platform.locks.acquire(lock::BLOCK, deadline)?);
        }
        Ok(())
    }
}

impl block::HostSource for Event {
    fn open(&mut self, path: String, access: block::Access) -> Result<Resource<OpenSource>, CallError> {
        self.count_call()?;
        self.open_source(&path, access)
    }

    fn open_when_there(
        &mut self,
        path: String,
        access: block::Access,
        milliseconds: u32,
    ) -> Result<Resource<OpenSource>, CallError> {
        self.count_call()?;
        let until = Instant::now() + Duration::from_millis(milliseconds.into());
        loop {
            match self.open_source(&path, access) {
                Err(CallError::NotFound(_)) if Instant::now() < until => sleep(POLL),
                result => return result,
            }
            self.check()?;
        }
    }

    fn facts(&mut self, this: Resource<OpenSource>) -> wasmtime::Result<block::SourceFacts> {
        self.count_call()?;
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
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let source = self.table.get(&this)?.source.clone();
        let sharing = match sharing {
            block::Sharing::Readers => Sharing::Readers,
            block::Sharing::Alone => Sharing::Alone,
            block::Sharing::Unchecked => Sharing::Unchecked,
        };
        self.lock_out_scripts()?;
        let claim = Claim::acquire(self.resources()?, context.access(), &source, sharing)?;
        // A guest and its stub domain, for example, share a tapdisk, which must not be started twice.
        let claims = &context.shared.claims;
        Ok(self.wait(|| (!claims.is_ahead(source.facts.identity, &claim)).then_some(()))?)
    }

    fn attach_loop(
        &mut self,
        this: Resource<OpenSource>,
        options: block::LoopOptions,
    ) -> Result<Resource<HeldLoop>, CallError> {
        self.count_call()?;
        let context = Arc::clone(&self.context);
        let open = self.table.get(&this)?;
        if open.access == Access::ReadOnly && !options.read_only {
            return Err(CallError::Denied(format!(
                "{} was opened read-only and cannot have a writable loop device",
                open.source.facts.path.display()
            )));
        }
        let source = open.source.clone();
        let device = Loop::acquire(
            self.resources()?,
            context.access(),
            &source,
            options.read_only,
            options.direct_io,
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
        self.count_call()?;
        Ok(format!("/dev/loop{}", self.table.get(&this)?.0.number))
    }

    fn device(&mut self, this: Resource<HeldLoop>) -> wasmtime::Result<block::DeviceNumber> {
        self.count_call()?;
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
