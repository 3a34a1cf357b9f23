//! Stands in for the hypervisor under an unmodified C xenstored, which is started with this library in `LD_PRELOAD`.
//!
//! xenstored asks Xen three things: which domains live (libxenctrl), when that changes (the event channel of
//! `VIRQ_DOM_EXC`), and for the page that it shares with each domain (libxengnttab). Here every domain lives until a
//! file named like its domid appears in the directory that `XENSTORED_STAND_IN_DOMAINS` names. The file says `dead`, or
//! `shutdown` for a domain that has stopped but still exists; xenstored notices as it would with Xen.
//!
//! A domain's page is the file `page/DOMID` in there, if there is one; whoever plays the domain's kernel maps or writes
//! that file, too, and rings by writing `DOMID.bell`. xenstored rings back with a datagram to the socket `wake/DOMID`. Any
//! other domain's page is an anonymous one that nobody writes to: clients speak through xenstored's socket.
//!
//! The signatures are those of Xen 4.17's `xenctrl.h`, `xenevtchn.h` and `xengnttab.h`; the uses are in
//! tools/xenstore/xenstored_{core,domain,posix}.c.
#![allow(
    unsafe_code,
    reason = "a library that takes C functions' places is made of C function signatures"
)]

mod domains;
mod events;
mod files;
mod pages;

use std::ffi::c_void;

/// A handle to give out: xenstored only compares it with NULL and hands it back.
fn handle() -> *mut c_void {
    std::ptr::dangling_mut::<u64>().cast()
}
