//! Platform under test: this host, or the simulated one. Most cases run on both.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use xenplug_system::{
    Platform,
    block::{LoopDevice, LoopOptions},
    grant::{Access, BlockGrant, HelperRule, NamePattern, NetworkGrant, Operator, PathRule, ProcessGrant},
    simulated::{Program, SimHost},
};

/// A machine with an empty directory.
pub(crate) struct Stage {
    pub(crate) system: Platform,
    pub(crate) name: &'static str,
    set: Set,
}

enum Set {
    Linux(TempDir),
    Simulated(Arc<SimHost>),
}

use Set::{Linux, Simulated};

impl Stage {
    /// Each kind of machine.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::simulated(), Self::linux()]
    }

    /// This machine.
    pub(crate) fn linux() -> Self {
        need_root();
        Self {
            system: Platform::linux().unwrap(),
            name: "linux",
            set: Linux(TempDir::new().unwrap()),
        }
    }

    /// One that is not there.
    pub(crate) fn simulated() -> Self {
        let (system, machine) = Platform::simulated();
        machine.add_pipe("/dev/null");
        machine.add_file("/etc/shadow", 1);
        Self {
            system,
            name: "simulated",
            set: Simulated(machine),
        }
    }

    /// Another daemon's hold on the same machine.
    pub(crate) fn another(&self) -> Platform {
        match &self.set {
            Linux(_) => Platform::linux().unwrap(),
            Simulated(machine) => machine.system(),
        }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> String {
        match &self.set {
            Linux(directory) => format!("{}/{name}", directory.path().canonicalize().unwrap().display()),
            Simulated(_) => format!("/stage/{name}"),
        }
    }

    /// Makes a file of that size, and the directories above it.
    pub(crate) fn file(&self, name: &str, size: u64) -> String {
        let path = self.path(name);
        match &self.set {
            Linux(_) => {
                fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
                fs::File::create(&path).unwrap().set_len(size).unwrap();
            }
            Simulated(machine) => machine.add_file(&path, size),
        }
        path
    }

    /// Makes a symbolic link, and the directories above it.
    pub(crate) fn link(&self, name: &str, target: &str) -> String {
        let path = self.path(name);
        match &self.set {
            Linux(_) => {
                fs::create_dir_all(Path::new(&path).parent().unwrap()).unwrap();
                std::os::unix::fs::symlink(target, &path).unwrap();
            }
            Simulated(machine) => machine.add_symlink(&path, target),
        }
        path
    }

    /// Takes everyone's permission to write.
    pub(crate) fn forbid_writing(&self, name: &str) {
        match &self.set {
            Linux(_) => fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o444)).unwrap(),
            Simulated(machine) => machine.forbid_writing(self.path(name)),
        }
    }

    /// Deletes a file.
    pub(crate) fn delete(&self, name: &str) {
        match &self.set {
            Linux(_) => fs::remove_file(self.path(name)).unwrap(),
            Simulated(machine) => machine.remove(self.path(name)),
        }
    }

    /// Opens a loop device, as blkback does, until what is returned is dropped.
    pub(crate) fn open_loop(&self, number: u32) -> OpenLoop<'_> {
        match &self.set {
            Linux(_) => OpenLoop(Some(fs::File::open(format!("/dev/loop{number}")).unwrap()), None),
            Simulated(machine) => {
                machine.open_loop(number);
                OpenLoop(None, Some((machine.as_ref(), number)))
            }
        }
    }

    /// Waits until no loop device has the tag: the kernel clears one with its last close, and whoever looks for loop
    /// devices, as the tests beside this one do, has each open for a moment.
    pub(crate) fn expect_no_loop(&self, tag: &str) {
        let found = || self.system.block.find_loops(tag).unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        while !found().is_empty() && Instant::now() < end {
            sleep(Duration::from_millis(5));
        }
        assert_eq!(found(), [], "{}", self.name);
    }

    /// Makes a bridge.
    pub(crate) fn bridge(&self, name: &str) {
        match &self.set {
            Linux(_) => drop(ip(&format!("link add {name} type bridge"))),
            Simulated(machine) => drop(machine.add_bridge(&name.parse().unwrap())),
        }
    }

    /// Makes a link, which is down.
    pub(crate) fn card(&self, name: &str) {
        match &self.set {
            Linux(_) => drop(ip(&format!("link add {name} type veth peer name p{name}"))),
            Simulated(machine) => drop(machine.add_link(&name.parse().unwrap())),
        }
    }

    /// Makes the kernel take a link away.
    pub(crate) fn unplug(&self, name: &str) {
        match &self.set {
            Linux(_) => drop(ip(&format!("link delete {name}"))),
            Simulated(machine) => machine.remove_link(&name.parse().unwrap()),
        }
    }

    /// The addresses of a link, but for those that the kernel made.
    pub(crate) fn addresses(&self, link: &str) -> Vec<String> {
        match &self.set {
            Linux(_) => {
                let addresses = ip(&format!("-o address show dev {link}"));
                let addresses = addresses.lines().filter_map(|line| line.split_whitespace().nth(3));
                addresses
                    .filter(|address| !address.starts_with("fe80:"))
                    .map(String::from)
                    .collect()
            }
            Simulated(machine) => machine
                .addresses(&link.parse().unwrap())
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }

    /// Says what the shell does when it is run, to a machine that has none.
    pub(crate) fn shell(&self, program: Program) {
        if let Simulated(machine) = &self.set {
            machine.add_program("/bin/sh", program);
        }
    }

    /// The links whose sending is restricted.
    pub(crate) fn restricted(&self) -> Vec<String> {
        match &self.set {
            Linux(_) => tables(),
            Simulated(machine) => machine.snapshot().rules.keys().map(ToString::to_string).collect(),
        }
    }

    /// Number of routes through a link that the kernel did not make by itself.
    pub(crate) fn routes(&self, link: &str) -> usize {
        match &self.set {
            Linux(_) => ["-4", "-6"]
                .map(|family| {
                    ip(&format!("{family} route show dev {link} proto static"))
                        .lines()
                        .count()
                })
                .iter()
                .sum(),
            Simulated(machine) => machine.routes(&link.parse().unwrap()).len(),
        }
    }
}

/// A descriptor of a loop device.
pub(crate) struct OpenLoop<'m>(
    #[expect(dead_code, reason = "held")] Option<fs::File>,
    Option<(&'m SimHost, u32)>,
);

impl Drop for OpenLoop<'_> {
    fn drop(&mut self) {
        if let Some((machine, number)) = self.1 {
            machine.close_loop(number);
        }
    }
}

/// Runs a test on each kind of machine, in a network namespace of its own.
pub(crate) fn in_network(test: impl Fn(&Stage) + Sync) {
    in_namespace(|| Stage::all().iter().for_each(&test));
}

/// Runs a test in a network namespace of its own, which goes with the thread.
#[allow(unsafe_code, reason = "unshare has no safe form")]
pub(crate) fn in_namespace(test: impl FnOnce() + Send) {
    need_root();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes flags alone; a network namespace is no matter of memory.
            let made = unsafe { libc::unshare(libc::CLONE_NEWNET) };
            assert_eq!(made, 0, "make a network namespace");
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// The links that have a table of the family netdev, as the kernel lists them.
fn tables() -> Vec<String> {
    use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
    // GETTABLE of the family, all of them (include/uapi/linux/netfilter/nf_tables.h).
    let mut request = Vec::new();
    request.extend(20_u32.to_ne_bytes());
    request.extend((10_u16 << 8 | 1).to_ne_bytes());
    request.extend(0x301_u16.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([5, 0, 0, 0]);
    let socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.send_to(&request, &SocketAddr::new(0, 0), 0).unwrap();
    let mut answer = Vec::with_capacity(1 << 16);
    socket.recv(&mut answer, 0).unwrap();
    let text = String::from_utf8_lossy(&answer);
    let names = text.split('\0').filter_map(|name| name.rsplit_once("xenplug-"));
    let mut links: Vec<_> = names.map(|(_, link)| link.to_owned()).collect();
    links.sort();
    links
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .expect("ip (iproute2) is installed");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A grant of bridges.
pub(crate) fn network_grant(bridges: &[&str]) -> NetworkGrant {
    let bridges = bridges.iter().map(|name| NamePattern((*name).into())).collect();
    let operator = Operator::of_configuration();
    let anywhere = ["0.0.0.0/0", "::/0"].map(|prefix| prefix.parse().unwrap());
    NetworkGrant::new(&operator, bridges).with_routes(&operator, anywhere.into())
}

/// A grant of the shell as a helper by that name, with these arguments and no others.
pub(crate) fn process_grant(helper: &str, arguments: &[&str]) -> ProcessGrant {
    let args = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let rule = HelperRule {
        name: helper.into(),
        path: "/bin/sh".into(),
        args,
    };
    ProcessGrant::new(&Operator::of_configuration(), vec![rule])
}

/// A grant of paths, and of loop devices.
pub(crate) fn block_grant(rules: &[(&str, Access)]) -> BlockGrant {
    let rules = rules
        .iter()
        .map(|(path, access)| PathRule {
            path: path.into(),
            access: *access,
        })
        .collect();
    BlockGrant::new(&Operator::of_configuration(), rules, true)
}

/// An attached loop device that is detached whatever happens.
pub(crate) struct Attached<'s>(pub(crate) &'s Stage, pub(crate) LoopDevice);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        self.0.system.block.detach_loop(&self.1).unwrap();
    }
}

/// Options for a device that may be written.
pub(crate) fn options(tag: &str) -> LoopOptions {
    LoopOptions {
        read_only: false,
        direct_io: false,
        tag: tag.into(),
    }
}

/// Attaches a loop device to a file.
pub(crate) fn attach<'s>(stage: &'s Stage, grant: &BlockGrant, path: &str, options: &LoopOptions) -> Attached<'s> {
    let access = if options.read_only {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    let source = stage.system.block.open(grant, path, access).unwrap();
    let device = stage.system.block.attach_loop(grant, &source, options).unwrap();
    stage.system.block.close(source.id);
    Attached(stage, device)
}

/// A tag that no other test uses.
pub(crate) fn tag(test: &str) -> String {
    format!("xenplug-test-{}-{test}", std::process::id())
}

/// These tests change the machine, in ways of their own.
fn need_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: it attaches loop devices and makes namespaces"
    );
}
