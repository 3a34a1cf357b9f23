//! Open files and block devices by handle, and loop devices.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{loops::Loops, source::OpenSource, usage::Usage};
use crate::{
    Block, Error,
    block::{LoopDevice, LoopOptions, Source, SourceIdentity},
    grant::{Access, BlockGrant},
    sync::lock,
};

/// Files, block devices and loop devices of this host.
#[derive(Debug, Default)]
pub(crate) struct LinuxBlock {
    sources: Mutex<HashMap<u64, Arc<OpenSource>>>,
    opened: AtomicU64,
    loops: Loops,
    usage: Usage,
}

impl LinuxBlock {
    fn source(&self, source: &Source) -> Result<Arc<OpenSource>, Error> {
        let open = lock(&self.sources).get(&source.id).cloned();
        open.ok_or_else(|| Error::NotFound(format!("{} is not open", source.facts.path.display())))
    }
}

impl Block for LinuxBlock {
    fn open(&self, grant: &BlockGrant, path: &str, access: Access) -> Result<Source, Error> {
        let source = OpenSource::open(grant, path, access)?;
        let facts = source.facts.clone();
        let id = self.opened.fetch_add(1, Ordering::Relaxed);
        lock(&self.sources).insert(id, Arc::new(source));
        Ok(Source { id, facts })
    }

    fn close(&self, source: u64) {
        // Closing the descriptor may take long, so the lock is released before.
        let closed = lock(&self.sources).remove(&source);
        drop(closed);
    }

    fn used_by(&self, source: &Source, access: Access, ours: &[u32]) -> Result<Option<String>, Error> {
        let source = self.source(source)?;
        match source.facts.identity {
            SourceIdentity::File { .. } => self.usage.of_file(&source, access, |number| {
                ours.contains(&number) || self.loops.holds(number)
            }),
            SourceIdentity::BlockDevice { .. } => self.usage.of_block_device(&source, access),
        }
    }

    fn attach_loop(&self, grant: &BlockGrant, source: &Source, options: &LoopOptions) -> Result<LoopDevice, Error> {
        grant.permit_loops()?;
        self.loops.attach(&*self.source(source)?, options)
    }

    fn adopt_loop(&self, grant: &BlockGrant, device: &LoopDevice) -> Result<Option<LoopDevice>, Error> {
        grant.permit_loops()?;
        self.loops.adopt(grant, device)
    }

    fn find_loops(&self, tag: &str) -> Result<Vec<LoopDevice>, Error> {
        super::loops::find(tag)
    }

    fn detach_loop(&self, device: &LoopDevice) -> Result<(), Error> {
        self.loops.detach(device)
    }
}
