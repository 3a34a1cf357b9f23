//! Attaches a loop device to a file, in four system calls (include/uapi/linux/loop.h).
#![allow(
    unsafe_code,
    reason = "ioctl(); the floor shares nothing with the daemon, whose ioctls are in host/system"
)]

use std::{
    ffi::c_void,
    fs::File,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

use rustix::{
    io::{Errno, Result},
    ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, ioctl},
};

/// `LOOP_MAJOR`.
pub(super) const MAJOR: u32 = 7;

const LOOP_CTL_REMOVE: Opcode = 0x4C81;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_config` with `struct loop_info64` in it.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// `lo_device` to `lo_sizelimit`.
    places: [u64; 5],
    /// `lo_number`, `lo_encrypt_type`, `lo_encrypt_key_size`.
    kinds: [u32; 3],
    flags: u32,
    names: [u8; 160],
    init: [u64; 2],
    reserved: [u64; 8],
}

struct GetFree;

// SAFETY: LOOP_CTL_GET_FREE takes no argument, and answers with the number as its return value.
unsafe impl Ioctl for GetFree {
    type Output = u32;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        LOOP_CTL_GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::null_mut()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<u32> {
        Ok(out.cast_unsigned())
    }
}

/// Attaches a free loop device, and returns its number and descriptor. The kernel detaches it at the last close.
pub(super) fn attach(path: &str, writable: bool) -> std::io::Result<(u32, OwnedFd)> {
    let file = File::options().read(true).write(writable).open(path)?;
    let control = File::open("/dev/loop-control")?;
    loop {
        // SAFETY: the argument is as GetFree says.
        let number = unsafe { ioctl(&control, GetFree) }?;
        let device = File::options()
            .read(true)
            .write(writable)
            .open(format!("/dev/loop{number}"))?;
        let config = LoopConfig {
            fd: file.as_raw_fd().cast_unsigned(),
            block_size: 0,
            places: [0; 5],
            kinds: [0; 3],
            flags: LO_FLAGS_AUTOCLEAR | if writable { 0 } else { LO_FLAGS_READ_ONLY },
            names: [0; 160],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: LOOP_CONFIGURE reads a struct loop_config, of which LoopConfig has the layout.
        match unsafe { ioctl(&device, Setter::<LOOP_CONFIGURE, _>::new(config)) } {
            // Another process has attached the device in between.
            Err(Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
            Ok(()) => return Ok((number, device.into())),
        }
    }
}

/// Removes an unused loop device.
pub(crate) fn remove(number: u32) -> std::io::Result<()> {
    let control = File::open("/dev/loop-control")?;
    // SAFETY: LOOP_CTL_REMOVE takes the number itself as its argument.
    Ok(unsafe { ioctl(&control, IntegerSetter::<LOOP_CTL_REMOVE>::new_usize(number as usize)) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loop_config_has_the_size_that_the_kernel_expects() {
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
