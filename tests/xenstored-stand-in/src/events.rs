//! In libxenevtchn's place: one descriptor that is readable when a domain's life has changed.
//!
//! The descriptor is an inotify instance on the directory of [`crate::domains`]; without one it never becomes readable.
//! Channels of single domains are numbers and nothing else.

use std::{
    ffi::{c_int, c_uint, c_void},
    os::fd::{BorrowedFd, IntoRawFd},
    sync::atomic::{AtomicI32, Ordering::Relaxed},
};

use rustix::fs::inotify;

use crate::{domains, handle};

/// The port of `VIRQ_DOM_EXC`, the only one on which anything arrives.
const VIRQ_PORT: c_int = 1;

static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
static LAST_PORT: AtomicI32 = AtomicI32::new(VIRQ_PORT);

/// NULL if there is no descriptor to be had. Without close-on-exec, because a live update inherits it.
#[unsafe(no_mangle)]
extern "C" fn xenevtchn_open(_logger: *mut c_void, _flags: c_uint) -> *mut c_void {
    let Ok(instance) = inotify::init(inotify::CreateFlags::NONBLOCK) else {
        return std::ptr::null_mut();
    };
    if let Some(directory) = domains::directory() {
        use inotify::WatchFlags as Watch;
        let changes = Watch::CLOSE_WRITE | Watch::DELETE | Watch::MOVED_TO | Watch::MOVED_FROM;
        if inotify::add_watch(&instance, directory, changes).is_err() {
            return std::ptr::null_mut();
        }
    }
    DESCRIPTOR.store(instance.into_raw_fd(), Relaxed);
    handle()
}

/// Takes over the descriptor that the xenstored before a live update had open.
#[unsafe(no_mangle)]
extern "C" fn xenevtchn_fdopen(_logger: *mut c_void, fd: c_int, _flags: c_uint) -> *mut c_void {
    DESCRIPTOR.store(fd, Relaxed);
    handle()
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_fd(_xce: *mut c_void) -> c_int {
    DESCRIPTOR.load(Relaxed)
}

/// Takes what has arrived, and answers that it came on the port of the domains' lives.
#[unsafe(no_mangle)]
extern "C" fn xenevtchn_pending(_xce: *mut c_void) -> c_int {
    let fd = DESCRIPTOR.load(Relaxed);
    if fd < 0 {
        return -1;
    }
    // SAFETY: the descriptor is open from xenevtchn_open or xenevtchn_fdopen on, until the process ends.
    let instance = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut events = [0_u8; 4096];
    while rustix::io::read(instance, &mut events).is_ok_and(|length| length > 0) {}
    VIRQ_PORT
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_bind_virq(_xce: *mut c_void, _virq: c_uint) -> c_int {
    VIRQ_PORT
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_bind_interdomain(_xce: *mut c_void, _domid: u32, _remote: c_uint) -> c_int {
    LAST_PORT.fetch_add(1, Relaxed) + 1
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_unbind(_xce: *mut c_void, _port: c_uint) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_notify(_xce: *mut c_void, _port: c_uint) -> c_int {
    0
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_unmask(_xce: *mut c_void, _port: c_uint) -> c_int {
    0
}
