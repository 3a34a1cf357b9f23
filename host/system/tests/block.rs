//! Files, block devices and loop devices.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use fixture::{Fixture, attach, block_grant, options, tag};
use xenplug_system::{
    Error,
    block::{LoopOptions, SourceIdentity},
    grant::{
        Access::{self, ReadOnly, ReadWrite},
        BlockGrant, Operator, PathRule,
    },
};

const MIB: u64 = 1 << 20;

#[test]
fn granted_file_opens_with_its_facts() {
    for fixture in Fixture::all() {
        let path = fixture.file("images/a.img", 3 * MIB);
        let grant = block_grant(&[(&fixture.path("images"), ReadWrite)]);
        let source = fixture.system.block.open(&grant, &path, ReadWrite).unwrap();
        assert_eq!(source.facts.path.to_str(), Some(path.as_str()), "{}", fixture.name);
        assert_eq!(source.facts.size, 3 * MIB);
        assert_eq!(source.facts.diskseq, None);
        assert!(!source.facts.read_only);
        assert!(matches!(source.facts.identity, SourceIdentity::File { .. }));
        let again = fixture.system.block.open(&grant, &path, ReadOnly).unwrap();
        assert_eq!(again.facts.identity, source.facts.identity);
        assert_ne!(again.id, source.id);
        fixture.system.block.close(source.id);
        fixture.system.block.close(source.id);
        assert!(matches!(
            fixture.system.block.attach_loop(&grant, &source, &options("x")),
            Err(Error::NotFound(_))
        ));
    }
}

#[test]
fn ungranted_path_is_denied() {
    for fixture in Fixture::all() {
        let inside = fixture.file("images/a.img", MIB);
        let outside = fixture.file("other/b.img", MIB);
        let prefix = fixture.file("images-not/c.img", MIB);
        fixture.link("images/to-outside", "../other/b.img");
        fixture.link("images/absolute", &outside);
        fixture.link("images/directory", "../other");
        fixture.link("images/climbs", "sub/../../other/b.img");
        let directory = fixture.path("images");
        let read_only = block_grant(&[(&directory, ReadOnly)]);
        let denied = |grant: &BlockGrant, path: &str, access| match fixture.system.block.open(grant, path, access) {
            Err(Error::Denied(text)) => assert!(!text.contains('\n') && text.contains(path), "{text}"),
            other => panic!("{}: {path}: {other:?}", fixture.name),
        };
        denied(&read_only, &inside, ReadWrite);
        denied(&read_only, &outside, ReadOnly);
        denied(&read_only, &prefix, ReadOnly);
        denied(&read_only, "/etc/shadow", ReadOnly);
        denied(&read_only, &fixture.path("images/to-outside"), ReadOnly);
        denied(&read_only, &fixture.path("images/absolute"), ReadOnly);
        denied(&read_only, &fixture.path("images/directory/b.img"), ReadOnly);
        assert!(
            fixture
                .system
                .block
                .open(&read_only, &fixture.path("images/climbs"), ReadOnly)
                .is_err()
        );
        denied(&block_grant(&[]), &inside, ReadOnly);
        let source = fixture.system.block.open(&read_only, &inside, ReadOnly).unwrap();
        let no_loops = BlockGrant::new(
            &Operator::of_configuration(),
            vec![PathRule {
                path: directory.into(),
                access: ReadWrite,
            }],
            false,
        );
        let refused = |grant, options| match fixture.system.block.attach_loop(grant, &source, &options) {
            Err(Error::Denied(_)) => {}
            other => panic!("{}: {other:?}", fixture.name),
        };
        refused(
            &no_loops,
            LoopOptions {
                read_only: true,
                ..options("x")
            },
        );
        refused(&read_only, options("x"));
    }
}

#[test]
fn links_within_the_grant_are_followed() {
    for fixture in Fixture::all() {
        let a = fixture.file("images/a.img", MIB);
        let b = fixture.file("golden/b.img", MIB);
        fixture.link("images/relative", "a.img");
        fixture.link("images/deep/er", "../a.img");
        fixture.link("images/absolute", &a);
        fixture.link("images/chain", "relative");
        fixture.link("images/directory", "../golden");
        fixture.link("images/loop", "loop");
        fixture.link("alias", "images");
        let images = fixture.path("images");
        let golden = fixture.path("golden");
        let alias = fixture.path("alias");
        let grant = block_grant(&[(&images, ReadWrite), (&golden, ReadOnly)]);
        for (name, leads_to) in [
            ("images/relative", &a),
            ("images/deep/er", &a),
            ("images/absolute", &a),
            ("images/chain", &a),
            ("images/directory/b.img", &b),
        ] {
            let source = fixture
                .system
                .block
                .open(&grant, &fixture.path(name), ReadOnly)
                .unwrap();
            assert_eq!(
                source.facts.path.to_str(),
                Some(leads_to.as_str()),
                "{}: {name}",
                fixture.name
            );
        }
        // The rule for the target's directory decides about the access.
        let path = fixture.path("images/directory/b.img");
        assert!(matches!(
            fixture.system.block.open(&grant, &path, ReadWrite),
            Err(Error::Denied(_))
        ));
        assert!(
            fixture
                .system
                .block
                .open(&grant, &fixture.path("images/loop"), ReadOnly)
                .is_err()
        );
        // Links in the rule's own path are followed.
        let grant = block_grant(&[(&alias, ReadWrite)]);
        for name in ["alias/a.img", "alias/relative", "alias/absolute", "alias/deep/er"] {
            let source = fixture
                .system
                .block
                .open(&grant, &fixture.path(name), ReadWrite)
                .unwrap();
            assert_eq!(source.facts.path.to_str(), Some(a.as_str()), "{}: {name}", fixture.name);
        }
    }
}

#[test]
fn rule_may_name_a_single_file() {
    for fixture in Fixture::all() {
        let a = fixture.file("a.img", MIB);
        let b = fixture.file("b.img", MIB);
        let grant = block_grant(&[(&a, ReadWrite)]);
        assert!(fixture.system.block.open(&grant, &a, ReadWrite).is_ok());
        assert!(matches!(
            fixture.system.block.open(&grant, &b, ReadOnly),
            Err(Error::Denied(_))
        ));
    }
}

#[test]
fn malformed_path_is_invalid() {
    for fixture in Fixture::all() {
        let long = format!("/{}", "x".repeat(4096));
        let grant = block_grant(&[("/", ReadWrite)]);
        for path in [
            "",
            "/srv/../etc/shadow",
            "../x",
            "./x",
            "/srv/./x",
            "/a\0b",
            "/a\nb",
            "/a\u{1b}[1m",
            &long,
        ] {
            match fixture.system.block.open(&grant, path, ReadOnly) {
                Err(Error::Invalid { key: "params", cause }) => assert!(cause.len() < 200 && !cause.contains('\n')),
                other => panic!("{}: {path:?}: {other:?}", fixture.name),
            }
        }
    }
}

#[test]
fn other_file_types_are_refused_at_once() {
    for fixture in Fixture::all() {
        fixture.file("images/directory/a", MIB);
        let grant = block_grant(&[(&fixture.path("images"), ReadWrite), ("/dev", ReadWrite)]);
        for path in [
            fixture.path("images"),
            fixture.path("images/directory"),
            "/dev/null".into(),
            "null".into(),
        ] {
            match fixture.system.block.open(&grant, &path, ReadOnly) {
                Err(Error::Invalid { key: "params", .. }) => {}
                other => panic!("{}: {path}: {other:?}", fixture.name),
            }
        }
        match fixture
            .system
            .block
            .open(&grant, &fixture.path("images/none"), ReadOnly)
        {
            Err(Error::NotFound(_)) => {}
            other => panic!("{}: {other:?}", fixture.name),
        }
    }
}

#[test]
fn link_swapped_in_during_open_leads_nowhere_else() {
    let fixture = Fixture::linux();
    let inside = fixture.file("images/a/disk.img", MIB);
    let outside = fixture.file("secret/disk.img", 2 * MIB);
    fixture.link("images/b", "../secret");
    let grant = block_grant(&[(&fixture.path("images"), ReadOnly)]);
    let (a, b) = (fixture.path("images/a"), fixture.path("images/b"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                use rustix::fs::{CWD, RenameFlags, renameat_with};
                renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
            }
        });
        let (mut opened, mut refused) = (0, 0);
        for _ in 0..20_000 {
            match fixture.system.block.open(&grant, &inside, ReadOnly) {
                Ok(source) => {
                    assert_eq!(source.facts.size, MIB, "{outside} was opened");
                    fixture.system.block.close(source.id);
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(
            opened > 0 && refused > 0,
            "the swap had no effect: {opened} opened, {refused} refused"
        );
    });
}

#[test]
fn pipe_is_refused_without_blocking() {
    let fixture = Fixture::linux();
    let path = fixture.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let grant = block_grant(&[(&fixture.path(""), ReadWrite)]);
    assert!(matches!(
        fixture.system.block.open(&grant, &path, ReadOnly),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn read_only_file_is_not_opened_for_writing() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        fixture.forbid_writing("a.img");
        let grant = block_grant(&[(&path, ReadWrite)]);
        match fixture.system.block.open(&grant, &path, ReadWrite) {
            Err(Error::Busy(text)) => assert_eq!(
                text,
                format!("File {path} is read-only, and so I will not mount it read-write in a guest domain.")
            ),
            other => panic!("{}: {other:?}", fixture.name),
        }
        assert!(
            fixture
                .system
                .block
                .open(&grant, &path, ReadOnly)
                .unwrap()
                .facts
                .read_only
        );
    }
}

#[test]
fn foreign_loop_device_is_a_user_of_its_file() {
    for fixture in Fixture::all() {
        let path = fixture.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let other = fixture.another();
        let source = fixture.system.block.open(&grant, &path, ReadOnly).unwrap();
        assert_eq!(fixture.system.block.used_by(&source, ReadWrite, &[]).unwrap(), None);
        let theirs = other.block.open(&grant, &path, ReadWrite).unwrap();
        let device = other
            .block
            .attach_loop(&grant, &theirs, &options(&tag("foreign")))
            .unwrap();
        other.block.close(theirs.id);
        let name = Some(format!("/dev/loop{}", device.number));
        assert_eq!(fixture.system.block.used_by(&source, ReadWrite, &[]).unwrap(), name);
        assert_eq!(fixture.system.block.used_by(&source, ReadOnly, &[]).unwrap(), name);
        assert_eq!(
            fixture
                .system
                .block
                .used_by(&source, ReadWrite, &[device.number])
                .unwrap(),
            None
        );
        other.block.detach_loop(&device).unwrap();
        assert_eq!(fixture.system.block.used_by(&source, ReadWrite, &[]).unwrap(), None);
    }
}

#[test]
fn detached_loop_device_opened_by_others_is_waited_for() {
    let fixture = Fixture::linux();
    let path = fixture.file("a.img", MIB);
    let grant = block_grant(&[(&path, ReadWrite)]);
    let used_after = |moment: Duration| {
        let attached = attach(&fixture, &grant, &path, &options(&tag("opened-by-udev")));
        let device = attached.1.clone();
        // udev opens a device that changes.
        let udev = fs::File::open(format!("/dev/loop{}", device.number)).unwrap();
        fixture.system.block.detach_loop(&device).unwrap();
        let closing = thread::spawn(move || {
            thread::sleep(moment);
            drop(udev);
        });
        let source = fixture.system.block.open(&grant, &path, ReadWrite).unwrap();
        let user = fixture.system.block.used_by(&source, ReadWrite, &[]).unwrap();
        fixture.system.block.close(source.id);
        closing.join().unwrap();
        (user, format!("/dev/loop{}", device.number))
    };
    assert_eq!(used_after(Duration::from_millis(200)).0, None);
    // The wait is limited.
    let (user, name) = used_after(Duration::from_secs(3));
    assert_eq!(user, Some(name));
}

#[test]
fn mount_is_a_user_and_a_read_only_one_for_writers() {
    let fixture = Fixture::linux();
    let path = fixture.file("a.img", 2 * MIB);
    let made = std::process::Command::new("mkfs.ext4")
        .args(["-q", "-F", &path])
        .status()
        .expect("mkfs.ext4 is installed");
    assert!(made.success());
    let node_grant = block_grant(&[("/dev", ReadWrite), (&path, ReadWrite)]);
    let device = attach(&fixture, &node_grant, &path, &options(&tag("mount")));
    let node = format!("loop{}", device.1.number);
    let used = |access: Access, what: &str| {
        let source = fixture.system.block.open(&node_grant, what, access).unwrap();
        let user = fixture
            .system
            .block
            .used_by(&source, access, &[device.1.number])
            .unwrap();
        fixture.system.block.close(source.id);
        user
    };
    assert_eq!(used(ReadWrite, &node), None);
    fs::create_dir(fixture.path("mnt")).unwrap();
    let mount = |flags: &str| {
        let mounted = std::process::Command::new("mount")
            .args(["-o", flags, &format!("/dev/{node}"), &fixture.path("mnt")])
            .status();
        assert!(mounted.unwrap().success());
    };
    let unmount = || {
        assert!(
            std::process::Command::new("umount")
                .arg(fixture.path("mnt"))
                .status()
                .unwrap()
                .success()
        )
    };
    let expected = Some(format!("the mount at {}", fixture.path("mnt")));

    mount("rw");
    let users = [
        used(ReadWrite, &node),
        used(ReadOnly, &node),
        used(ReadOnly, &path),
        used(ReadWrite, &path),
    ];
    unmount();
    assert_eq!(
        users,
        [expected.clone(), expected.clone(), expected.clone(), expected.clone()]
    );

    mount("ro");
    let users = [used(ReadWrite, &node), used(ReadOnly, &node), used(ReadOnly, &path)];
    unmount();
    assert_eq!(users, [expected, None, None]);
    assert_eq!(used(ReadWrite, &node), None);
}

#[test]
fn block_device_opens_with_facts_and_exclusive_user() {
    let fixture = Fixture::linux();
    let path = fixture.file("a.img", 2 * MIB);
    let grant = block_grant(&[("/dev", ReadWrite), (&path, ReadWrite)]);
    let device = attach(&fixture, &grant, &path, &options(&tag("device")));
    let name = format!("loop{}", device.1.number);
    let source = fixture.system.block.open(&grant, &name, ReadWrite).unwrap();
    assert_eq!(source.facts.path.to_str(), Some(format!("/dev/{name}").as_str()));
    assert_eq!(source.facts.size, 2 * MIB);
    assert_eq!(source.facts.diskseq, device.1.diskseq);
    assert_eq!(
        source.facts.identity,
        SourceIdentity::BlockDevice {
            major: device.1.major,
            minor: device.1.minor
        }
    );
    assert!(matches!(
        fixture.system.block.attach_loop(&grant, &source, &options("x")),
        Err(Error::Invalid { key: "params", .. })
    ));
    assert_eq!(fixture.system.block.used_by(&source, ReadWrite, &[]).unwrap(), None);
    let exclusive = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
        .open(format!("/dev/{name}"))
        .unwrap();
    assert!(fixture.system.block.used_by(&source, ReadWrite, &[]).unwrap().is_some());
    assert_eq!(fixture.system.block.used_by(&source, ReadOnly, &[]).unwrap(), None);
    drop(exclusive);
    fixture.system.block.close(source.id);
}

#[test]
fn udev_link_leads_to_a_block_device_outside_its_rule() {
    let fixture = Fixture::linux();
    let path = fixture.file("a.img", 2 * MIB);
    let files = block_grant(&[(&path, ReadWrite)]);
    let device = attach(&fixture, &files, &path, &options(&tag("vg")));
    let group = format!("/dev/xenplug-test-{}", std::process::id());
    let _group = OwnDirectory::new(&group);
    std::os::unix::fs::symlink(format!("../loop{}", device.1.number), format!("{group}/disk")).unwrap();
    std::os::unix::fs::symlink("../null", format!("{group}/null")).unwrap();
    std::os::unix::fs::symlink(&path, format!("{group}/file")).unwrap();
    std::os::unix::fs::symlink("../loop-control", format!("{group}/theirs")).unwrap();
    std::os::unix::fs::symlink(format!("../loop{}", device.1.number), format!("{group}/not-roots")).unwrap();
    std::os::unix::fs::lchown(format!("{group}/not-roots"), Some(1), Some(1)).unwrap();
    let grant = block_grant(&[(&group, ReadWrite)]);

    let name = format!("xenplug-test-{}/disk", std::process::id());
    let source = fixture.system.block.open(&grant, &name, ReadWrite).unwrap();
    assert_eq!(
        source.facts.path.to_str(),
        Some(format!("/dev/loop{}", device.1.number).as_str())
    );
    fixture.system.block.close(source.id);
    for name in ["null", "file", "theirs", "not-roots"] {
        let opened = fixture.system.block.open(&grant, &format!("{group}/{name}"), ReadOnly);
        assert!(
            matches!(opened, Err(Error::Denied(_) | Error::Invalid { .. })),
            "{name}: {opened:?}"
        );
    }
    let reading = block_grant(&[(&group, ReadOnly)]);
    assert!(matches!(
        fixture.system.block.open(&reading, &name, ReadWrite),
        Err(Error::Denied(_))
    ));
    assert!(matches!(
        fixture
            .system
            .block
            .open(&grant, &format!("/dev/loop{}", device.1.number), ReadOnly),
        Err(Error::Denied(_))
    ));
}

/// A directory, removed on drop.
struct OwnDirectory(String);

impl OwnDirectory {
    fn new(path: &str) -> Self {
        fs::create_dir(path).unwrap();
        Self(path.into())
    }
}

impl Drop for OwnDirectory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
