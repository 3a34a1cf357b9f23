//! Files, block devices and loop devices.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod stage;

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use stage::{Stage, attach, block_grant, options, tag};
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
fn a_file_within_the_grant_opens_with_its_facts() {
    for stage in Stage::all() {
        let path = stage.file("images/a.img", 3 * MIB);
        let grant = block_grant(&[(&stage.path("images"), ReadWrite)]);
        let source = stage.system.block.open(&grant, &path, ReadWrite).unwrap();
        assert_eq!(source.facts.path.to_str(), Some(path.as_str()), "{}", stage.name);
        assert_eq!(source.facts.size, 3 * MIB);
        assert_eq!(source.facts.diskseq, None);
        assert!(!source.facts.read_only);
        assert!(matches!(source.facts.identity, SourceIdentity::File { .. }));
        let again = stage.system.block.open(&grant, &path, ReadOnly).unwrap();
        assert_eq!(again.facts.identity, source.facts.identity);
        assert_ne!(again.id, source.id);
        stage.system.block.close(source.id);
        stage.system.block.close(source.id);
        assert!(matches!(
            stage.system.block.attach_loop(&grant, &source, &options("x")),
            Err(Error::NotFound(_))
        ));
    }
}

#[test]
fn what_is_not_granted_is_denied() {
    for stage in Stage::all() {
        let inside = stage.file("images/a.img", MIB);
        let outside = stage.file("other/b.img", MIB);
        let prefix = stage.file("images-not/c.img", MIB);
        stage.link("images/to-outside", "../other/b.img");
        stage.link("images/absolute", &outside);
        stage.link("images/directory", "../other");
        stage.link("images/climbs", "sub/../../other/b.img");
        let directory = stage.path("images");
        let read_only = block_grant(&[(&directory, ReadOnly)]);
        let denied = |grant: &BlockGrant, path: &str, access| match stage.system.block.open(grant, path, access) {
            Err(Error::Denied(text)) => assert!(!text.contains('\n') && text.contains(path), "{text}"),
            other => panic!("{}: {path}: {other:?}", stage.name),
        };
        denied(&read_only, &inside, ReadWrite);
        denied(&read_only, &outside, ReadOnly);
        denied(&read_only, &prefix, ReadOnly);
        denied(&read_only, "/etc/shadow", ReadOnly);
        denied(&read_only, &stage.path("images/to-outside"), ReadOnly);
        denied(&read_only, &stage.path("images/absolute"), ReadOnly);
        denied(&read_only, &stage.path("images/directory/b.img"), ReadOnly);
        assert!(
            stage
                .system
                .block
                .open(&read_only, &stage.path("images/climbs"), ReadOnly)
                .is_err()
        );
        denied(&block_grant(&[]), &inside, ReadOnly);
        let source = stage.system.block.open(&read_only, &inside, ReadOnly).unwrap();
        let no_loops = BlockGrant::new(
            &Operator::of_configuration(),
            vec![PathRule {
                path: directory.into(),
                access: ReadWrite,
            }],
            false,
        );
        let refused = |grant, options| match stage.system.block.attach_loop(grant, &source, &options) {
            Err(Error::Denied(_)) => {}
            other => panic!("{}: {other:?}", stage.name),
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
fn links_that_stay_within_what_is_granted_are_followed() {
    for stage in Stage::all() {
        let a = stage.file("images/a.img", MIB);
        let b = stage.file("golden/b.img", MIB);
        stage.link("images/relative", "a.img");
        stage.link("images/deep/er", "../a.img");
        stage.link("images/absolute", &a);
        stage.link("images/chain", "relative");
        stage.link("images/directory", "../golden");
        stage.link("images/loop", "loop");
        stage.link("alias", "images");
        let images = stage.path("images");
        let golden = stage.path("golden");
        let alias = stage.path("alias");
        let grant = block_grant(&[(&images, ReadWrite), (&golden, ReadOnly)]);
        for (name, leads_to) in [
            ("images/relative", &a),
            ("images/deep/er", &a),
            ("images/absolute", &a),
            ("images/chain", &a),
            ("images/directory/b.img", &b),
        ] {
            let source = stage.system.block.open(&grant, &stage.path(name), ReadOnly).unwrap();
            assert_eq!(
                source.facts.path.to_str(),
                Some(leads_to.as_str()),
                "{}: {name}",
                stage.name
            );
        }
        // How it may be used is up to the rule for where it is.
        let path = stage.path("images/directory/b.img");
        assert!(matches!(
            stage.system.block.open(&grant, &path, ReadWrite),
            Err(Error::Denied(_))
        ));
        assert!(
            stage
                .system
                .block
                .open(&grant, &stage.path("images/loop"), ReadOnly)
                .is_err()
        );
        // The rule's own path may have links in it.
        let grant = block_grant(&[(&alias, ReadWrite)]);
        for name in ["alias/a.img", "alias/relative", "alias/absolute", "alias/deep/er"] {
            let source = stage.system.block.open(&grant, &stage.path(name), ReadWrite).unwrap();
            assert_eq!(source.facts.path.to_str(), Some(a.as_str()), "{}: {name}", stage.name);
        }
    }
}

#[test]
fn a_rule_may_name_a_single_file() {
    for stage in Stage::all() {
        let a = stage.file("a.img", MIB);
        let b = stage.file("b.img", MIB);
        let grant = block_grant(&[(&a, ReadWrite)]);
        assert!(stage.system.block.open(&grant, &a, ReadWrite).is_ok());
        assert!(matches!(
            stage.system.block.open(&grant, &b, ReadOnly),
            Err(Error::Denied(_))
        ));
    }
}

#[test]
fn a_malformed_path_is_invalid() {
    for stage in Stage::all() {
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
            match stage.system.block.open(&grant, path, ReadOnly) {
                Err(Error::Invalid { key: "params", cause }) => assert!(cause.len() < 200 && !cause.contains('\n')),
                other => panic!("{}: {path:?}: {other:?}", stage.name),
            }
        }
    }
}

#[test]
fn what_is_neither_file_nor_block_device_is_refused_at_once() {
    for stage in Stage::all() {
        stage.file("images/directory/a", MIB);
        let grant = block_grant(&[(&stage.path("images"), ReadWrite), ("/dev", ReadWrite)]);
        for path in [
            stage.path("images"),
            stage.path("images/directory"),
            "/dev/null".into(),
            "null".into(),
        ] {
            match stage.system.block.open(&grant, &path, ReadOnly) {
                Err(Error::Invalid { key: "params", .. }) => {}
                other => panic!("{}: {path}: {other:?}", stage.name),
            }
        }
        match stage.system.block.open(&grant, &stage.path("images/none"), ReadOnly) {
            Err(Error::NotFound(_)) => {}
            other => panic!("{}: {other:?}", stage.name),
        }
    }
}

#[test]
fn a_link_that_is_swapped_in_while_it_is_opened_leads_nowhere_else() {
    let stage = Stage::linux();
    let inside = stage.file("images/a/disk.img", MIB);
    let outside = stage.file("secret/disk.img", 2 * MIB);
    stage.link("images/b", "../secret");
    let grant = block_grant(&[(&stage.path("images"), ReadOnly)]);
    let (a, b) = (stage.path("images/a"), stage.path("images/b"));
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
            match stage.system.block.open(&grant, &inside, ReadOnly) {
                Ok(source) => {
                    assert_eq!(source.facts.size, MIB, "{outside} was opened");
                    stage.system.block.close(source.id);
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(
            opened > 0 && refused > 0,
            "the swap was not seen: {opened} opened, {refused} refused"
        );
    });
}

#[test]
fn a_pipe_blocks_nobody() {
    let stage = Stage::linux();
    let path = stage.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
    let grant = block_grant(&[(&stage.path(""), ReadWrite)]);
    assert!(matches!(
        stage.system.block.open(&grant, &path, ReadOnly),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn a_file_that_nobody_may_write_is_not_opened_for_writing() {
    for stage in Stage::all() {
        let path = stage.file("a.img", MIB);
        stage.forbid_writing("a.img");
        let grant = block_grant(&[(&path, ReadWrite)]);
        match stage.system.block.open(&grant, &path, ReadWrite) {
            Err(Error::Busy(text)) => assert_eq!(
                text,
                format!("File {path} is read-only, and so I will not mount it read-write in a guest domain.")
            ),
            other => panic!("{}: {other:?}", stage.name),
        }
        assert!(
            stage
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
fn a_loop_device_of_someone_else_is_a_user_of_its_file() {
    for stage in Stage::all() {
        let path = stage.file("a.img", MIB);
        let grant = block_grant(&[(&path, ReadWrite)]);
        let other = stage.another();
        let source = stage.system.block.open(&grant, &path, ReadOnly).unwrap();
        assert_eq!(stage.system.block.used_by(&source, ReadWrite, &[]).unwrap(), None);
        let theirs = other.block.open(&grant, &path, ReadWrite).unwrap();
        let device = other
            .block
            .attach_loop(&grant, &theirs, &options(&tag("foreign")))
            .unwrap();
        other.block.close(theirs.id);
        let name = Some(format!("/dev/loop{}", device.number));
        assert_eq!(stage.system.block.used_by(&source, ReadWrite, &[]).unwrap(), name);
        assert_eq!(stage.system.block.used_by(&source, ReadOnly, &[]).unwrap(), name);
        assert_eq!(
            stage
                .system
                .block
                .used_by(&source, ReadWrite, &[device.number])
                .unwrap(),
            None
        );
        other.block.detach_loop(&device).unwrap();
        assert_eq!(stage.system.block.used_by(&source, ReadWrite, &[]).unwrap(), None);
    }
}

#[test]
fn a_detached_loop_device_that_somebody_looks_into_for_a_moment_is_waited_for() {
    let stage = Stage::linux();
    let path = stage.file("a.img", MIB);
    let grant = block_grant(&[(&path, ReadWrite)]);
    let used_after = |moment: Duration| {
        let attached = attach(&stage, &grant, &path, &options(&tag("looked-into")));
        let device = attached.1.clone();
        // As udev does when it changes.
        let look = fs::File::open(format!("/dev/loop{}", device.number)).unwrap();
        stage.system.block.detach_loop(&device).unwrap();
        let looking = thread::spawn(move || {
            thread::sleep(moment);
            drop(look);
        });
        let source = stage.system.block.open(&grant, &path, ReadWrite).unwrap();
        let user = stage.system.block.used_by(&source, ReadWrite, &[]).unwrap();
        stage.system.block.close(source.id);
        looking.join().unwrap();
        (user, format!("/dev/loop{}", device.number))
    };
    assert_eq!(used_after(Duration::from_millis(200)).0, None);
    // But not for long.
    let (user, name) = used_after(Duration::from_secs(3));
    assert_eq!(user, Some(name));
}

#[test]
fn a_mount_is_a_user_and_a_read_only_one_only_for_writers() {
    let stage = Stage::linux();
    let path = stage.file("a.img", 2 * MIB);
    let made = std::process::Command::new("mkfs.ext4")
        .args(["-q", "-F", &path])
        .status()
        .expect("mkfs.ext4 is installed");
    assert!(made.success());
    let node_grant = block_grant(&[("/dev", ReadWrite), (&path, ReadWrite)]);
    let device = attach(&stage, &node_grant, &path, &options(&tag("mount")));
    let node = format!("loop{}", device.1.number);
    let used = |access: Access, what: &str| {
        let source = stage.system.block.open(&node_grant, what, access).unwrap();
        let user = stage.system.block.used_by(&source, access, &[device.1.number]).unwrap();
        stage.system.block.close(source.id);
        user
    };
    assert_eq!(used(ReadWrite, &node), None);
    fs::create_dir(stage.path("mnt")).unwrap();
    let mount = |flags: &str| {
        let mounted = std::process::Command::new("mount")
            .args(["-o", flags, &format!("/dev/{node}"), &stage.path("mnt")])
            .status();
        assert!(mounted.unwrap().success());
    };
    let unmount = || {
        assert!(
            std::process::Command::new("umount")
                .arg(stage.path("mnt"))
                .status()
                .unwrap()
                .success()
        )
    };
    let expected = Some(format!("the mount at {}", stage.path("mnt")));

    mount("rw");
    let seen = [
        used(ReadWrite, &node),
        used(ReadOnly, &node),
        used(ReadOnly, &path),
        used(ReadWrite, &path),
    ];
    unmount();
    assert_eq!(
        seen,
        [expected.clone(), expected.clone(), expected.clone(), expected.clone()]
    );

    mount("ro");
    let seen = [used(ReadWrite, &node), used(ReadOnly, &node), used(ReadOnly, &path)];
    unmount();
    assert_eq!(seen, [expected, None, None]);
    assert_eq!(used(ReadWrite, &node), None);
}

#[test]
fn a_block_device_opens_with_its_facts_and_an_exclusive_user_counts() {
    let stage = Stage::linux();
    let path = stage.file("a.img", 2 * MIB);
    let grant = block_grant(&[("/dev", ReadWrite), (&path, ReadWrite)]);
    let device = attach(&stage, &grant, &path, &options(&tag("device")));
    let name = format!("loop{}", device.1.number);
    let source = stage.system.block.open(&grant, &name, ReadWrite).unwrap();
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
        stage.system.block.attach_loop(&grant, &source, &options("x")),
        Err(Error::Invalid { key: "params", .. })
    ));
    assert_eq!(stage.system.block.used_by(&source, ReadWrite, &[]).unwrap(), None);
    let exclusive = fs::OpenOptions::new()
        .read(true)
        .custom_flags(rustix::fs::OFlags::EXCL.bits().cast_signed())
        .open(format!("/dev/{name}"))
        .unwrap();
    assert!(stage.system.block.used_by(&source, ReadWrite, &[]).unwrap().is_some());
    assert_eq!(stage.system.block.used_by(&source, ReadOnly, &[]).unwrap(), None);
    drop(exclusive);
    stage.system.block.close(source.id);
}

#[test]
fn a_link_of_dev_leads_to_a_block_device_outside_its_directory() {
    let stage = Stage::linux();
    let path = stage.file("a.img", 2 * MIB);
    let files = block_grant(&[(&path, ReadWrite)]);
    let device = attach(&stage, &files, &path, &options(&tag("vg")));
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
    let source = stage.system.block.open(&grant, &name, ReadWrite).unwrap();
    assert_eq!(
        source.facts.path.to_str(),
        Some(format!("/dev/loop{}", device.1.number).as_str())
    );
    stage.system.block.close(source.id);
    for name in ["null", "file", "theirs", "not-roots"] {
        let opened = stage.system.block.open(&grant, &format!("{group}/{name}"), ReadOnly);
        assert!(
            matches!(opened, Err(Error::Denied(_) | Error::Invalid { .. })),
            "{name}: {opened:?}"
        );
    }
    let reading = block_grant(&[(&group, ReadOnly)]);
    assert!(matches!(
        stage.system.block.open(&reading, &name, ReadWrite),
        Err(Error::Denied(_))
    ));
    assert!(matches!(
        stage
            .system
            .block
            .open(&grant, &format!("/dev/loop{}", device.1.number), ReadOnly),
        Err(Error::Denied(_))
    ));
}

/// A directory that is removed whatever happens.
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
