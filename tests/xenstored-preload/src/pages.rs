//! Functions of libxengnttab: the page that xenstored shares with a domain.

use std::{
    ffi::{c_int, c_uint, c_void},
    fs::File,
    ptr,
};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::{domains, handle};

/// Size of a grant, which is independent of the host's page size (xen/include/public/arch-x86/xen.h).
pub(crate) const PAGE: usize = 4096;

#[unsafe(no_mangle)]
extern "C" fn xengnttab_open(_logger: *mut c_void, _flags: c_uint) -> *mut c_void {
    handle()
}

#[unsafe(no_mangle)]
extern "C" fn xengnttab_close(_xgt: *mut c_void) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn xengnttab_set_max_grants(_xgt: *mut c_void, _count: u32) -> c_int {
    0
}

/// Maps the page of the domain, or a new page of zeros, which xenstored takes for a domain that has sent nothing yet.
/// Returns NULL without memory.
#[unsafe(no_mangle)]
extern "C" fn xengnttab_map_grant_ref(_xgt: *mut c_void, domid: u32, _reference: u32, _prot: c_int) -> *mut c_void {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let page = domains::directory().map(|directory| directory.join("page").join(domid.to_string()));
    let page = page.and_then(|page| File::options().read(true).write(true).open(page).ok());
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
    unsafe {
        match page {
            Some(page) => mmap(ptr::null_mut(), PAGE, protection, MapFlags::SHARED, &page, 0),
            None => mmap_anonymous(ptr::null_mut(), PAGE, protection, MapFlags::PRIVATE),
        }
    }
    .unwrap_or(ptr::null_mut())
}

/// # Safety
/// `address` came from [`xengnttab_map_grant_ref`], and nothing uses it any more.
#[unsafe(no_mangle)]
unsafe extern "C" fn xengnttab_unmap(_xgt: *mut c_void, address: *mut c_void, count: u32) -> c_int {
    // SAFETY: the caller unmaps a page that xengnttab_map_grant_ref mapped.
    match unsafe { munmap(address, PAGE * count as usize) } {
        Ok(()) => 0,
        Err(_) => -1,
    }
}
