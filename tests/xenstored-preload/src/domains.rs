//! Functions of libxenctrl: the list of domains.

use std::{
    env,
    ffi::{c_int, c_uint, c_void},
    fs,
    path::PathBuf,
};

use crate::handle;

/// Beginning of `xc_dominfo_t`, with all fields that xenstored reads.
#[repr(C)]
struct DomainInfo {
    domid: u32,
    ssidref: u32,
    /// Bit fields, lowest first: dying, crashed, shutdown, ...
    flags: c_uint,
}

const SHUTDOWN: c_uint = 1 << 2;

/// Returns the directory with a file for every domain that is dead or shut down, if it is configured.
pub(crate) fn directory() -> Option<PathBuf> {
    env::var_os("XENSTORED_PRELOAD_DOMAINS").map(PathBuf::from)
}

/// Beginning of `xc_domaininfo_t` (`xen_domctl_getdomaininfo` in xen/include/public/domctl.h).
#[repr(C)]
struct DomctlInfo {
    domid: u16,
    pad: u16,
    /// `XEN_DOMINF_dying`, `_hvm_guest`, `_shutdown`, ...: shutdown has the bit of [`SHUTDOWN`].
    flags: u32,
}

/// Returns the flags of a domain, or `None` for a dead one.
fn flags(domid: u32) -> Option<c_uint> {
    let state = directory().and_then(|directory| fs::read_to_string(directory.join(domid.to_string())).ok());
    match state.as_deref().map(str::trim) {
        None => Some(0),
        Some("shutdown") => Some(SHUTDOWN),
        Some(_) => None,
    }
}

/// Fills in one domain and returns 0, or returns -1 for a dead domain. xenstored calls it since Xen 4.18.
///
/// # Safety
/// `info` points to memory for an `xc_domaininfo_t`, of which the beginning is written.
#[unsafe(no_mangle)]
unsafe extern "C" fn xc_domain_getinfo_single(_xch: *mut c_void, domid: u32, info: *mut DomctlInfo) -> c_int {
    let (Some(flags), Ok(number)) = (flags(domid), u16::try_from(domid)) else {
        return -1;
    };
    // SAFETY: the caller passes memory for a whole xc_domaininfo_t, which is larger than its beginning.
    unsafe {
        info.write(DomctlInfo {
            domid: number,
            pad: 0,
            flags,
        })
    };
    0
}

#[unsafe(no_mangle)]
extern "C" fn xc_interface_open(_logger: *mut c_void, _dombuild_logger: *mut c_void, _flags: c_uint) -> *mut c_void {
    handle()
}

#[unsafe(no_mangle)]
extern "C" fn xc_interface_close(_xch: *mut c_void) -> c_int {
    0
}

/// Fills in one domain and returns 1, or returns 0 for a dead domain. xenstored calls it up to Xen 4.17.
///
/// # Safety
/// `info` points to memory for an `xc_dominfo_t`, of which the beginning is written.
#[unsafe(no_mangle)]
unsafe extern "C" fn xc_domain_getinfo(_xch: *mut c_void, first: u32, _max: c_uint, info: *mut DomainInfo) -> c_int {
    let Some(flags) = flags(first) else { return 0 };
    // SAFETY: the caller passes memory for a whole xc_dominfo_t, which is larger than its beginning.
    unsafe {
        info.write(DomainInfo {
            domid: first,
            ssidref: 0,
            flags,
        })
    };
    1
}
