//! Limits that a process sets itself before it does something that others may make expensive.

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::Error;

/// Bytes of address space for compiling one component. CPython's 18 MB take less than 2 GiB.
const ADDRESS_SPACE: u64 = 8 << 30;
/// Seconds of processor time, over all threads. CPython's component takes some 10.
const PROCESSOR: u64 = 120;

/// Confines this process to what compiling a component takes: bounded memory and time, no core file, no file written.
/// For good.
pub fn confine_compiler() -> Result<(), Error> {
    let limits = [
        (Resource::As, ADDRESS_SPACE),
        (Resource::Cpu, PROCESSOR),
        (Resource::Core, 0),
        (Resource::Fsize, 0),
    ];
    for (resource, most) in limits {
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
