//! Numbers of virtual devices (xen-vbd-interface(7); tools/libs/light/libxl_device.c, `libxl__device_disk_dev_number`).

use xenplug_xenbus::DevId;

/// Limits of the extended numbering.
const DISKS: u32 = 1 << 20;
const PARTITIONS: u32 = 256;

/// Returns the number of `xvda`, `hdc3`, `sdb`, `d5p1`, or of a number.
pub fn dev_number(vdev: &str) -> Option<DevId> {
    let number = if let Some((disk, partition)) = numbered(vdev).or_else(|| lettered(vdev, "xvd", DISKS, PARTITIONS)) {
        if disk <= 15 && partition <= 15 {
            (202 << 8) | (disk << 4) | partition
        } else {
            (1 << 28) | (disk << 8) | partition
        }
    } else if let Some(number) = number(vdev) {
        number
    } else if let Some((disk, partition)) = lettered(vdev, "hd", 4, 64) {
        let major = if disk < 2 { 3 } else { 22 };
        (major << 8) | ((disk & 1) << 6) | partition
    } else {
        let (disk, partition) = lettered(vdev, "sd", 16, 16)?;
        (8 << 8) | (disk << 4) | partition
    };
    Some(DevId(number))
}

/// Parses `d<disk>p<partition>`.
fn numbered(vdev: &str) -> Option<(u32, u32)> {
    let (disk, partition) = vdev.strip_prefix('d')?.split_once('p')?;
    let (disk, partition) = (number(disk)?, number(partition)?);
    (disk < DISKS && partition < PARTITIONS).then_some((disk, partition))
}

/// Parses a number as C does: decimal, hexadecimal after `0x`, octal after `0`; at most `INT_MAX`.
fn number(text: &str) -> Option<u32> {
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&text[2..], 16),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (text, 10),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let number = u32::from_str_radix(digits, base).ok()?;
    (plain && number <= i32::MAX.unsigned_abs()).then_some(number)
}

/// Parses `<prefix><letters>[<partition>]`; letters count as `a` 0 to `z` 25, `aa` 26, and on.
fn lettered(vdev: &str, prefix: &str, disks: u32, partitions: u32) -> Option<(u32, u32)> {
    let rest = vdev.strip_prefix(prefix)?;
    let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
    let (letters, partition) = rest.split_at(letters);
    let mut disk: Option<u32> = None;
    for letter in letters.bytes() {
        let next = disk.map_or(0, |disk| (disk + 1) * 26) + u32::from(letter - b'a');
        if next >= disks {
            return None;
        }
        disk = Some(next);
    }
    let partition = match partition {
        "" => 0,
        digits if digits.starts_with('0') || !digits.bytes().all(|b| b.is_ascii_digit()) => return None,
        digits => digits.parse().ok().filter(|number| *number < partitions)?,
    };
    Some((disk?, partition))
}
