//! Hypervisor interface for an unmodified C xenstored on a host without Xen, by way of `LD_PRELOAD`.
//!
//! xenstored uses Xen for three things: the list of domains (libxenctrl), the event of a change of it (the event channel
//! of `VIRQ_DOM_EXC`), and the page that it shares with each domain (libxengnttab). With this library every domain exists
//! until a file with its domid as name appears in the directory `XENSTORED_PRELOAD_DOMAINS`. The file contains `dead`, or
//! `shutdown` for a domain that has stopped but still exists; xenstored reacts as under Xen.
//!
//! The page of a domain is the file `page/DOMID` in that directory, if it exists. The test that acts as the domain's kernel
//! maps or writes that file too, and sends an event by writing `DOMID.bell`; xenstored sends its events as datagrams to the
//! socket `wake/DOMID`. Any other domain has an anonymous page that stays empty: its clients use the socket of xenstored.
//!
//! The signatures are those of Xen 4.17's `xenctrl.h`, `xenevtchn.h` and `xengnttab.h`; the uses are in
//! tools/xenstore/xenstored_{core,domain,posix}.c.
#![allow(
    unsafe_code,
    reason = "a library that replaces C functions consists of C function signatures"
)]

mod domains;
mod events;
mod files;
mod pages;

use std::ffi::c_void;

/// Returns a handle. xenstored only compares it with NULL and passes it back.
fn handle() -> *mut c_void {
    std::ptr::dangling_mut::<u64>().cast()
}
