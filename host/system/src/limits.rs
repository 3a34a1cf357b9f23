//! Limits that a process sets itself: narrow ones for a compiler, wide ones for a daemon that holds much open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Error;

/// Address space for compiling one component, in bytes. CPython's 18 MB take less than 2 GiB.
const ADDRESS_SPACE: u64 = 8 << 30;
/// Seconds of processor time, over all threads. CPython's component takes some 10.
const PROCESSOR: u64 = 120;

/// Confines this process to what compiling a component takes: bounded memory and time, no core file, no file written; or
/// to less, where whoever started it has. For good.
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

/// Lets this process open as many descriptors as it may: a device holds two, its journal record and its loop device.
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
