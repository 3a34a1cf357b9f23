//! open() of the C library, for the files from which dom0's xenstored reads its own page and event channel.

use std::ffi::{CStr, c_char, c_int, c_uint};

use rustix::{
    fd::{IntoRawFd, OwnedFd},
    fs::{CWD, MemfdFlags, Mode, OFlags, ftruncate, memfd_create, openat, seek},
    io::{Errno, Result, write},
};

use crate::pages::PAGE;

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
}

/// `open(2)`. C declares it with a variable third argument, which arrives like a fixed one in the calling conventions of
/// Linux on x86-64 and 64-bit ARM; it is used only with the flags that require it.
///
/// # Safety
/// `path` points to a string that ends with NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: C's contract for open().
    let path = unsafe { CStr::from_ptr(path) };
    answer(opened(path, flags, mode))
}

/// `open64(2)`, which equals `open(2)` on 64-bit hosts.
///
/// # Safety
/// `path` points to a string that ends with NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: C's contract for open64().
    let path = unsafe { CStr::from_ptr(path) };
    answer(opened(path, flags, mode))
}

/// Opens a file of the test instead of `/proc/xen/xsd_port` and `/proc/xen/xsd_kva` (or `/dev/xen/xenbus_backend`), and
/// any other file as usual. rustix calls the kernel itself, and not the `open` above.
fn opened(path: &CStr, flags: c_int, mode: c_uint) -> Result<OwnedFd> {
    let name = path.to_bytes().rsplit(|byte| *byte == b'/').next();
    match name {
        Some(b"xsd_port") => {
            let port = memfd_create("xsd_port", MemfdFlags::CLOEXEC)?;
            write(&port, b"1")?;
            seek(&port, rustix::fs::SeekFrom::Start(0))?;
            Ok(port)
        }
        Some(b"xsd_kva" | b"xenbus_backend") => {
            let page = memfd_create("xsd_kva", MemfdFlags::CLOEXEC)?;
            ftruncate(&page, PAGE as u64)?;
            Ok(page)
        }
        _ => {
            let flags = OFlags::from_bits_retain(flags.cast_unsigned());
            let mode = if flags.intersects(OFlags::CREATE | OFlags::TMPFILE) {
                mode
            } else {
                0
            };
            openat(CWD, path, flags, Mode::from_raw_mode(mode))
        }
    }
}

/// Converts a result to that of a C function: the descriptor, or -1 and `errno`.
fn answer(result: Result<OwnedFd>) -> c_int {
    result.map_or_else(fail, IntoRawFd::into_raw_fd)
}

fn fail(error: Errno) -> c_int {
    // SAFETY: the C library's errno of this thread lives as long as the thread.
    unsafe { *__errno_location() = error.raw_os_error() };
    -1
}
