//! The ioctls and fcntls of loop devices, block devices and files that rustix lacks.
#![allow(
    unsafe_code,
    reason = "ioctl and fcntl take untyped arguments; each request is given its type here"
)]

use std::{
    mem::size_of,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use rustix::io::Errno;

/// `lo_flags` (include/uapi/linux/loop.h).
pub(super) const LO_FLAGS_READ_ONLY: u32 = 1;
/// Flag of a device that the kernel clears when its last user closes it.
pub(super) const LO_FLAGS_AUTOCLEAR: u32 = 4;
/// Flag of a device that bypasses the page cache.
pub(super) const LO_FLAGS_DIRECT_IO: u32 = 16;

const LOOP_CONFIGURE: u32 = 0x4c0a;
const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_GET_STATUS64: u32 = 0x4c05;
const LOOP_CTL_ADD: u32 = 0x4c80;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;
/// `_IO(0x12, 94)` (include/uapi/linux/fs.h).
const BLKROGET: u32 = 0x125e;
/// `_IOR(0x12, 114, size_t)`.
const BLKGETSIZE64: u32 = 0x8000_1272 | (size_of::<usize>() as u32) << 16;
/// `_IOR(0x12, 128, __u64)`.
const BLKGETDISKSEQ: u32 = 0x8008_1280;

/// Sets the signal that reports a broken lease (include/uapi/asm-generic/fcntl.h).
const F_SETSIG: libc::c_int = 10;

/// `struct loop_info64` (include/uapi/linux/loop.h).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct LoopInfo {
    pub lo_device: u64,
    pub lo_inode: u64,
    pub lo_rdevice: u64,
    pub lo_offset: u64,
    pub lo_sizelimit: u64,
    pub lo_number: u32,
    pub lo_encrypt_type: u32,
    pub lo_encrypt_key_size: u32,
    pub lo_flags: u32,
    pub lo_file_name: [u8; 64],
    pub lo_crypt_name: [u8; 64],
    pub lo_encrypt_key: [u8; 32],
    pub lo_init: [u64; 2],
}

impl LoopInfo {
    /// Makes a structure with flags and a name, of which at most 63 bytes are used.
    pub(super) fn new(flags: u32, name: &[u8]) -> Self {
        // SAFETY: integers and arrays of integers, for which all zeroes is a value.
        let mut info: Self = unsafe { std::mem::zeroed() };
        info.lo_flags = flags;
        let length = name.len().min(63);
        info.lo_file_name[..length].copy_from_slice(&name[..length]);
        info
    }

    /// Returns the name up to its NUL.
    pub(super) fn name(&self) -> &[u8] {
        self.lo_file_name.split(|byte| *byte == 0).next().unwrap_or_default()
    }
}

/// `struct loop_config` (include/uapi/linux/loop.h).
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// Returns the number of a free loop device. The kernel makes one if there is none.
pub(super) fn loop_free(control: BorrowedFd<'_>) -> Result<u32, Errno> {
    // SAFETY: takes no argument.
    unsafe { ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE, 0) }
}

/// Makes the loop device with this number.
pub(super) fn loop_add(control: BorrowedFd<'_>, number: u32) -> Result<(), Errno> {
    // SAFETY: the argument is a number.
    unsafe { ioctl(control.as_raw_fd(), LOOP_CTL_ADD, number as usize) }.map(drop)
}

/// Attaches a file to a free loop device, with the default block size.
pub(super) fn loop_configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, info: LoopInfo) -> Result<(), Errno> {
    let config = LoopConfig {
        fd: file.as_raw_fd().cast_unsigned(),
        block_size: 0,
        info,
        reserved: [0; 8],
    };
    // SAFETY: the kernel reads one `struct loop_config`, which lives over the call.
    unsafe { ioctl(device.as_raw_fd(), LOOP_CONFIGURE, (&raw const config) as usize) }.map(drop)
}

/// Clears a loop device, now or when its last user closes it.
pub(super) fn loop_clear(device: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: takes no argument.
    unsafe { ioctl(device.as_raw_fd(), LOOP_CLR_FD, 0) }.map(drop)
}

/// Reads the state of an attached loop device; `ENXIO` if it is not attached.
pub(super) fn loop_status(device: BorrowedFd<'_>) -> Result<LoopInfo, Errno> {
    let mut info = LoopInfo::new(0, b"");
    // SAFETY: the kernel writes one `struct loop_info64`, which lives over the call.
    unsafe { ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, (&raw mut info) as usize) }?;
    Ok(info)
}

/// Tells whether a block device is set read-only.
pub(super) fn block_read_only(device: BorrowedFd<'_>) -> Result<bool, Errno> {
    let mut read_only: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl(device.as_raw_fd(), BLKROGET, (&raw mut read_only) as usize) }?;
    Ok(read_only != 0)
}

/// Returns the size of a block device in bytes.
pub(super) fn block_size(device: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut size: u64 = 0;
    // SAFETY: the kernel writes one u64, whatever the size in the request's number says.
    unsafe { ioctl(device.as_raw_fd(), BLKGETSIZE64, (&raw mut size) as usize) }?;
    Ok(size)
}

/// Returns the sequence number of a disk, which no other disk has had since boot. `None` before Linux 5.15.
pub(super) fn disk_sequence(device: BorrowedFd<'_>) -> Option<u64> {
    let mut sequence: u64 = 0;
    // SAFETY: the kernel writes one u64.
    unsafe { ioctl(device.as_raw_fd(), BLKGETDISKSEQ, (&raw mut sequence) as usize) }.ok()?;
    Some(sequence)
}

/// Tells whether a file is open elsewhere in a way that conflicts with a lease: a read lease conflicts with writers, an
/// exclusive (write) lease also with readers, where IMA is built in. `None` if the file system has no leases.
pub(super) fn opened_elsewhere(file: BorrowedFd<'_>, exclusive: bool) -> Option<bool> {
    let wanted = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
    let fd = file.as_raw_fd();
    // SAFETY: these requests take a number. If a process opens the file while the lease is held, the kernel sends a
    // signal. SIGURG is ignored by default, while SIGIO would end the process.
    unsafe {
        if libc::fcntl(fd, F_SETSIG, libc::SIGURG) < 0 {
            return None;
        }
        if libc::fcntl(fd, libc::F_SETLEASE, wanted) < 0 {
            return match Errno::from_io_error(&std::io::Error::last_os_error()) {
                Some(Errno::AGAIN) => Some(true),
                _ => None,
            };
        }
        libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK);
    }
    Some(false)
}

/// # Safety
/// `argument` is what `request` takes: nothing, a number, or the address of its structure.
unsafe fn ioctl(fd: RawFd, request: u32, argument: usize) -> Result<u32, Errno> {
    // SAFETY: as promised by the caller.
    let result = unsafe { libc::ioctl(fd, request as _, argument) };
    match u32::try_from(result) {
        Ok(value) => Ok(value),
        Err(_) => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
