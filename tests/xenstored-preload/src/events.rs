//! Functions of libxenevtchn: one descriptor that is readable when a domain has changed or has sent an event.
//!
//! The descriptor is an inotify instance on the directory of [`crate::domains`]; without one it never becomes readable.
//! xenstored reads the page of every domain, regardless of the port (tools/xenstored/core.c, `main`).

use std::{
    ffi::{c_int, c_uint, c_void},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, IntoRawFd},
        unix::net::UnixDatagram,
    },
    sync::atomic::{AtomicI32, Ordering::Relaxed},
};

use rustix::fs::inotify;

use crate::{domains, handle};

/// Port of `VIRQ_DOM_EXC`.
const VIRQ_PORT: c_int = 1;

/// Port of domain 0; that of another domain is higher by its domid.
const FIRST_PORT: c_int = 16;

static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);

/// Opens the descriptor, or returns NULL. It has no close-on-exec flag, because a live update inherits it.
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

/// Adopts the descriptor of the xenstored before a live update.
#[unsafe(no_mangle)]
extern "C" fn xenevtchn_fdopen(_logger: *mut c_void, fd: c_int, _flags: c_uint) -> *mut c_void {
    DESCRIPTOR.store(fd, Relaxed);
    handle()
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_fd(_xce: *mut c_void) -> c_int {
    DESCRIPTOR.load(Relaxed)
}

/// Takes the pending events. Returns the port of `VIRQ_DOM_EXC` if a domain has changed, else that of a domain.
#[unsafe(no_mangle)]
extern "C" fn xenevtchn_pending(_xce: *mut c_void) -> c_int {
    let fd = DESCRIPTOR.load(Relaxed);
    if fd < 0 {
        return -1;
    }
    // SAFETY: the descriptor is open from xenevtchn_open or xenevtchn_fdopen on, until the process ends.
    let instance = unsafe { BorrowedFd::borrow_raw(fd) };
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(instance, &mut buffer);
    let mut port = FIRST_PORT;
    while let Ok(event) = events.next() {
        let rings = event
            .file_name()
            .is_some_and(|name| name.to_bytes().ends_with(b".bell"));
        if !rings {
            port = VIRQ_PORT;
        }
    }
    port
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_bind_virq(_xce: *mut c_void, _virq: c_uint) -> c_int {
    VIRQ_PORT
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_bind_interdomain(_xce: *mut c_void, domid: u32, _remote: c_uint) -> c_int {
    FIRST_PORT + domid.cast_signed()
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_unbind(_xce: *mut c_void, _port: c_uint) -> c_int {
    0
}

/// Sends an event to a domain, if a test acts as that domain.
#[unsafe(no_mangle)]
extern "C" fn xenevtchn_notify(_xce: *mut c_void, port: c_uint) -> c_int {
    let domid = port.cast_signed() - FIRST_PORT;
    if let Some(directory) = domains::directory()
        && let Ok(bell) = UnixDatagram::unbound()
        && bell.set_nonblocking(true).is_ok()
    {
        // One pending event is enough, and the receiver may be absent.
        let _ = bell.send_to(b"!", directory.join("wake").join(domid.to_string()));
    }
    0
}

#[unsafe(no_mangle)]
extern "C" fn xenevtchn_unmask(_xce: *mut c_void, _port: c_uint) -> c_int {
    0
}
