//! Loop devices: attached, found again, and detached.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
};

use fixture::{Attached, Fixture, attach, block_grant, options, tag};
use xenplug_system::{
    block::{LoopDevice, LoopOptions, SourceIdentity},
    grant::Access::{ReadOnly, ReadWrite},
};

const MIB: u64 = 1 << 20;

#[test]
fn loop_device_is_attached_and_detached() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let tag = tag("attach");
        let device = attach(&fixture, &grant, &path, &options(&tag));
        let identity = fixture
            .system
            .block
            .open(&grant, &path, ReadOnly)
            .unwrap()
            .facts
            .identity;
        assert_eq!(device.1.backing, identity);
        assert_eq!(device.1.backing_path.to_str(), Some(path.as_str()));
        assert_eq!((device.1.major, &device.1.options), (7, &options(&tag)));
        assert_eq!(
            fixture.system.block.find_loops(&tag).unwrap(),
            std::slice::from_ref(&device.1),
            "{}",
            fixture.name
        );
        fixture.system.block.detach_loop(&device.1).unwrap();
        fixture.expect_no_loop(&tag);
        fixture.system.block.detach_loop(&device.1).unwrap();
    }
}

#[test]
fn deleted_image_leaves_no_loop_device() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let tag = tag("deleted");
        let device = attach(&fixture, &grant, &path, &options(&tag));
        fixture.delete("a.img");
        let found = fixture.system.block.find_loops(&tag).unwrap();
        assert_eq!(found, std::slice::from_ref(&device.1), "{}", fixture.name);
        fixture.system.block.detach_loop(&found[0]).unwrap();
        fixture.expect_no_loop(&tag);
    }
}

#[test]
fn read_only_loop_device_refuses_writes() {
    let fixture = Fixture::linux();
    let path = fixture.file("a.img", MIB);
    let grant = block_grant(&[(&path, ReadWrite)]);
    let device = attach(
        &fixture,
        &grant,
        &path,
        &LoopOptions {
            read_only: true,
            ..options(&tag("ro"))
        },
    );
    let node = format!("/dev/loop{}", device.1.number);
    let opened = fs::OpenOptions::new().write(true).open(&node);
    assert!(
        opened
            .and_then(|mut file| file.write_all(&[1; 512]).and_then(|()| file.sync_all()))
            .is_err()
    );
    let number = device.1.number;
    drop(device);

    // The kernel keeps the read-only flag of a cleared device.
    let writable = attach(&fixture, &grant, &path, &options(&tag("rw")));
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(rustix::fs::OFlags::SYNC.bits().cast_signed())
        .open(format!("/dev/loop{}", writable.1.number))
        .unwrap();
    file.seek(SeekFrom::Start(4096)).unwrap();
    file.write_all(&[7; 512]).unwrap();
    drop(file);
    let mut written = Vec::new();
    fs::File::open(&path).unwrap().read_to_end(&mut written).unwrap();
    assert_eq!(
        written[4096..4096 + 512],
        [7; 512],
        "loop{number} then loop{}",
        writable.1.number
    );
}

#[test]
fn concurrent_attaches_get_distinct_loop_devices() {
    for fixture in Fixture::all() {
        let directory = fixture.path("images");
        let paths: Vec<_> = (0..24).map(|n| fixture.file(&format!("images/{n}.img"), MIB)).collect();
        let grant = block_grant(&[(&directory, ReadWrite)]);
        let tag = tag("many");
        let devices: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = paths
                .iter()
                .map(|path| scope.spawn(|| attach(&fixture, &grant, path, &options(&tag))))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut numbers: Vec<_> = devices.iter().map(|device| device.1.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), paths.len());
        for (device, path) in devices.iter().zip(&paths) {
            assert_eq!(device.1.backing_path.to_str(), Some(path.as_str()));
        }
        drop(devices);
        fixture.expect_no_loop(&tag);
    }
}

#[test]
fn loop_device_goes_with_its_last_user() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let tag = tag("last-user");
        let device = attach(&fixture, &grant, &path, &options(&tag));
        let user = fixture.open_loop(device.1.number);
        fixture.system.block.detach_loop(&device.1).unwrap();
        assert_eq!(
            fixture.system.block.find_loops(&tag).unwrap().len(),
            1,
            "{}",
            fixture.name
        );
        drop(user);
        fixture.expect_no_loop(&tag);
    }
}

#[test]
fn next_daemon_adopts_a_loop_device() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let tag = tag("adopt");
        let old = fixture.another();
        let source = old.block.open(&grant, &path, ReadWrite).unwrap();
        let device = old.block.attach_loop(&grant, &source, &options(&tag)).unwrap();
        let blkback = fixture.open_loop(device.number);
        drop(old);
        let adopted = fixture.system.block.adopt_loop(&grant, &device).unwrap().unwrap();
        assert_eq!(adopted, device, "{}", fixture.name);
        assert_eq!(
            fixture.system.block.adopt_loop(&grant, &device).unwrap(),
            Some(adopted.clone())
        );
        drop(blkback);
        assert_eq!(
            fixture.system.block.find_loops(&tag).unwrap(),
            std::slice::from_ref(&adopted)
        );
        fixture.system.block.detach_loop(&adopted).unwrap();
        fixture.expect_no_loop(&tag);
    }
}

#[test]
fn next_daemon_reattaches_a_cleared_loop_device() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let tag = tag("anew");
        let old = fixture.another();
        let source = old.block.open(&grant, &path, ReadWrite).unwrap();
        let template = old.block.attach_loop(&grant, &source, &options(&tag)).unwrap();
        drop(old);
        // By autoclear the kernel clears the devices of a daemon that ended.
        fixture.expect_no_loop(&tag);

        // A high number, which no other test uses meanwhile.
        let device = LoopDevice {
            number: 20_000 + std::process::id() % 10_000,
            ..template
        };
        let _node = OwnNode(device.number);
        let adopted = Attached(
            &fixture,
            fixture.system.block.adopt_loop(&grant, &device).unwrap().unwrap(),
        );
        assert_eq!(
            (adopted.1.number, adopted.1.backing),
            (device.number, device.backing),
            "{}",
            fixture.name
        );
        drop(adopted);

        let mut other = device.clone();
        other.backing = SourceIdentity::File {
            device: 1,
            inode: u64::MAX,
        };
        assert_eq!(
            fixture.system.block.adopt_loop(&grant, &other).unwrap(),
            None,
            "another file has its name"
        );
        fixture.delete("a.img");
        assert_eq!(
            fixture.system.block.adopt_loop(&grant, &device).unwrap(),
            None,
            "its file is gone"
        );
    }
}

#[test]
fn recreated_loop_device_is_left_alone() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let tag = tag("other");
        let device = attach(&fixture, &grant, &path, &options(&tag));
        let mut stale = device.1.clone();
        stale.diskseq = stale.diskseq.map(|sequence| sequence - 1);
        fixture.system.block.detach_loop(&stale).unwrap();
        assert_eq!(
            fixture.system.block.find_loops(&tag).unwrap(),
            std::slice::from_ref(&device.1),
            "{}",
            fixture.name
        );
        let foreign = LoopDevice {
            options: options("someone else's"),
            ..device.1.clone()
        };
        assert_eq!(fixture.system.block.adopt_loop(&grant, &foreign).unwrap(), None);
    }
}

/// A loop device with a number that nobody else uses, removed on drop.
struct OwnNode(u32);

impl Drop for OwnNode {
    #[allow(unsafe_code, reason = "no library offers this ioctl")]
    fn drop(&mut self) {
        use std::os::fd::AsRawFd;
        const LOOP_CTL_REMOVE: u32 = 0x4c81;
        let Ok(control) = fs::File::open("/dev/loop-control") else {
            return;
        };
        // SAFETY: the argument is a number. Without such a device the call fails, as on the simulated host.
        unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_REMOVE as _, self.0) };
    }
}
