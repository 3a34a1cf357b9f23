//! A loop device on a file.

use serde::{Deserialize, Serialize};
use xenplug_system::{
    Error,
    block::{LoopDevice, LoopOptions, Source},
};

use super::kind::{AnyKind, HostAccess, ResourceKind};
use crate::{
    header::Header,
    held_resources::{HeldResources, ResourceError},
};

/// A loop device on a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loop {
    /// The tag that the device carries in the kernel.
    tag: String,
    /// The device, once it is known.
    device: Option<LoopDevice>,
}

impl Loop {
    pub(crate) fn acquire<R: AnyKind + From<Self>>(
        resources: &mut HeldResources<R>,
        access: HostAccess<'_>,
        file: &Source,
        read_only: bool,
        direct_io: bool,
    ) -> Result<LoopDevice, ResourceError> {
        let grant = access.block()?;
        let intent = Self {
            tag: resources.tag(),
            device: None,
        };
        let options = LoopOptions {
            read_only,
            direct_io,
            tag: intent.tag.clone(),
        };
        resources.acquire(intent, |held| {
            let device = access.platform.block.attach_loop(grant, file, &options)?;
            held.device = Some(device.clone());
            Ok(device)
        })
    }
}

impl ResourceKind for Loop {
    fn describe(&self) -> String {
        match &self.device {
            Some(device) => format!("/dev/loop{} on {}", device.number, device.backing_path.display()),
            None => "a loop device being attached".to_owned(),
        }
    }

    fn release(&self, _: &Header, access: HostAccess<'_>) -> Result<(), Error> {
        let block = &access.platform.block;
        match &self.device {
            Some(device) => block.detach_loop(device),
            None => block
                .find_loops(&self.tag)?
                .iter()
                .try_for_each(|device| block.detach_loop(device)),
        }
    }

    /// Also holds the device's descriptor again, or attaches the file anew under the same number if the kernel has
    /// cleared the device meanwhile.
    fn reclaim(&mut self, _: &Header, access: HostAccess<'_>) -> Result<(), String> {
        let Some(device) = &mut self.device else {
            return Ok(());
        };
        let reclaimed = access
            .block()
            .and_then(|grant| access.platform.block.adopt_loop(grant, device));
        match reclaimed {
            Ok(Some(same)) => {
                *device = same;
                Ok(())
            }
            Ok(None) => Err(format!("loop{} is gone", device.number)),
            Err(error) => Err(format!("loop{}: {error}", device.number)),
        }
    }
}
