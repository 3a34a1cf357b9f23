//! Resource limits of this process: low ones for a compiler, a high limit of descriptors for the daemon.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Error;

/// Address space for compiling one component, in bytes. CPython's 18 MB take less than 2 GiB.
const ADDRESS_SPACE: u64 = 8 << 30;
/// Seconds of processor time, over all threads. CPython's component takes some 10.
const PROCESSOR: u64 = 120;

/// Limits this process, which compiles a component: bounded memory and time, no core file, no writes to files. Lower
/// limits of the parent stay. The process cannot raise its limits again.
pub fn confine_compiler() -> Result<(), Error> {
    let limits = [
        (Resource::As, ADDRESS_SPACE),
        (Resource::Cpu, PROCESSOR),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in limits {
        let most = getrlimit(resource).maximum.map_or(most, |given| given.min(most));
        setrlimit(
            resource,
            Rlimit {
                current: Some(most),
                maximum: Some(most),
            },
        )
        .map_err(|error| Error::Kernel {
            what: format!("limit {resource:?} of the compiler"),
            errno: Some(error.raw_os_error()),
            source_text: error.to_string(),
        })?;
    }
    Ok(())
}

/// Raises the limit of descriptors as far as it may be. A device holds two: its journal record and its loop device.
pub fn raise_descriptors() -> Result<(), Error> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    )
    .map_err(|error| Error::Kernel {
        what: "raise the limit of open descriptors".to_owned(),
        errno: Some(error.raw_os_error()),
        source_text: error.to_string(),
    })
}
