//! Open files, block devices and loop devices on the simulated host.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex},
};

use super::{Loop, Operation, SimHost, World};
use crate::{
    Block, Error,
    block::{LoopDevice, LoopOptions, Source, SourceFacts, SourceIdentity, absolute},
    grant::{Access, BlockGrant},
    sync::lock,
};

/// `LOOP_MAJOR` (include/uapi/linux/major.h).
const LOOP_MAJOR: u32 = 7;

/// Open files and loop devices of one daemon.
#[derive(Debug)]
pub(crate) struct SimulatedBlock {
    host: Arc<SimHost>,
    sources: Mutex<BTreeMap<u64, (SourceFacts, Access)>>,
    held: Mutex<BTreeSet<u32>>,
}

impl SimulatedBlock {
    pub(crate) fn on(host: Arc<SimHost>) -> Self {
        Self {
            host,
            sources: Mutex::default(),
            held: Mutex::default(),
        }
    }

    fn hold(&self, number: u32) {
        lock(&self.held).insert(number);
    }

    fn source(&self, source: &Source) -> Result<(SourceFacts, Access), Error> {
        let open = lock(&self.sources).get(&source.id).cloned();
        open.ok_or_else(|| Error::NotFound(format!("{} is not open", source.facts.path.display())))
    }
}

impl Drop for SimulatedBlock {
    fn drop(&mut self) {
        let mut world = self.host.world();
        for number in std::mem::take(&mut *lock(&self.held)) {
            world.close_loop(number);
        }
        for source in lock(&self.sources).keys() {
            world.sources.remove(source);
        }
    }
}

impl Block for SimulatedBlock {
    fn open(&self, grant: &BlockGrant, path: &str, access: Access) -> Result<Source, Error> {
        let mut world = self.host.enter(Operation::Open)?;
        let facts = world.files.open(grant, &absolute(path)?, access)?;
        world.source_number += 1;
        let id = world.source_number;
        world.sources.insert(id);
        lock(&self.sources).insert(id, (facts.clone(), access));
        Ok(Source { id, facts })
    }

    fn close(&self, source: u64) {
        lock(&self.sources).remove(&source);
        self.host.world().sources.remove(&source);
    }

    fn used_by(&self, source: &Source, access: Access, ours: &[u32]) -> Result<Option<String>, Error> {
        let world = self.host.enter(Operation::UsedBy)?;
        let identity = self.source(source)?.0.identity;
        if let Some(mount) = world.files.mounted(identity, access) {
            return Ok(Some(mount));
        }
        let backed = || {
            world
                .loops
                .values()
                .filter(|attached| attached.device.backing == identity)
        };
        let mounted = backed().find_map(|Loop { device, .. }| {
            let device = SourceIdentity::BlockDevice {
                major: device.major,
                minor: device.minor,
            };
            world.files.mounted(device, access)
        });
        let held = lock(&self.held);
        let foreign = backed().map(|attached| &attached.device).find(|device| {
            let ours = ours.contains(&device.number) || held.contains(&device.number);
            !ours && (access == Access::ReadWrite || !device.options.read_only)
        });
        Ok(mounted.or_else(|| foreign.map(|device| format!("/dev/loop{}", device.number))))
    }

    fn attach_loop(&self, grant: &BlockGrant, source: &Source, options: &LoopOptions) -> Result<LoopDevice, Error> {
        let mut world = self.host.enter(Operation::AttachLoop)?;
        grant.permit_loops()?;
        let (facts, access) = self.source(source)?;
        options.check(&facts, access)?;
        let number = (0..)
            .find(|number| !world.loops.contains_key(number))
            .unwrap_or_default();
        let device = world.attach(number, &facts, options);
        self.hold(number);
        Ok(device)
    }

    fn adopt_loop(&self, grant: &BlockGrant, device: &LoopDevice) -> Result<Option<LoopDevice>, Error> {
        let mut world = self.host.enter(Operation::AdoptLoop)?;
        grant.permit_loops()?;
        if let Some(attached) = world.loops.get_mut(&device.number) {
            if !attached.device.is(device) {
                return Ok(None);
            }
            let newly = lock(&self.held).insert(device.number);
            attached.users += u32::from(newly);
            return Ok(Some(attached.device.clone()));
        }
        let access = if device.options.read_only {
            Access::ReadOnly
        } else {
            Access::ReadWrite
        };
        let facts = match world.files.open(grant, &device.backing_path, access) {
            Ok(facts) if facts.identity == device.backing => facts,
            Ok(_) | Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let device = world.attach(device.number, &facts, &device.options);
        self.hold(device.number);
        Ok(Some(device))
    }

    fn find_loops(&self, tag: &str) -> Result<Vec<LoopDevice>, Error> {
        let world = self.host.enter(Operation::FindLoops)?;
        let devices = world.loops.values().map(|attached| attached.device.clone());
        Ok(devices.filter(|device| device.options.tag.starts_with(tag)).collect())
    }

    fn detach_loop(&self, device: &LoopDevice) -> Result<(), Error> {
        let mut world = self.host.enter(Operation::DetachLoop)?;
        let Some(attached) = world.loops.get(&device.number) else {
            return Ok(());
        };
        if attached.device.backing != device.backing || attached.device.options.tag != device.options.tag {
            return Ok(());
        }
        // A device that was attached again since is left alone, and one that others have open stays.
        if attached.device.diskseq == device.diskseq && lock(&self.held).remove(&device.number) {
            world.close_loop(device.number);
        }
        Ok(())
    }
}

impl World {
    fn attach(&mut self, number: u32, facts: &SourceFacts, options: &LoopOptions) -> LoopDevice {
        self.diskseq += 1;
        let device = LoopDevice {
            number,
            major: LOOP_MAJOR,
            minor: number,
            diskseq: Some(self.diskseq),
            backing: facts.identity,
            backing_path: facts.path.clone(),
            options: options.clone(),
        };
        self.files
            .add_block_device(&node(number), (LOOP_MAJOR, number), facts.size, self.diskseq);
        self.loops.insert(
            number,
            Loop {
                device: device.clone(),
                users: 1,
            },
        );
        device
    }

    /// Closes one descriptor of a loop device.
    pub(super) fn close_loop(&mut self, number: u32) {
        if let Some(attached) = self.loops.get_mut(&number) {
            attached.users = attached.users.saturating_sub(1);
            if attached.users == 0 {
                self.loops.remove(&number);
                self.files.remove(&node(number));
            }
        }
    }
}

fn node(number: u32) -> std::path::PathBuf {
    Path::new("/dev").join(format!("loop{number}"))
}
