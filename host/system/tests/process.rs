//! Helper programs: the shell, with well-behaved and misbehaving scripts.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixture;

use std::{
    fs,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use fixture::{Fixture, process_grant, tag};
use xenplug_system::{
    Error, Platform,
    process::{HelperProcess, OUTPUT_MAX, Output},
    simulated::Program,
};

const LONG: Duration = Duration::from_secs(20);

/// Runs a script to its end.
fn run(fixture: &Fixture, script: &str, test: &str) -> Result<Output, Error> {
    run_for(&fixture.system, script, test, LONG)
}

fn run_for(system: &Platform, script: &str, test: &str, limit: Duration) -> Result<Output, Error> {
    let arguments = ["-c".to_owned(), script.to_owned()];
    system.process.run(
        &process_grant("sh", &["-c", script]),
        "sh",
        &arguments,
        &tag(test),
        limit,
    )
}

/// A started helper, ended on drop.
struct Started<'s>(&'s Platform, HelperProcess);

impl Drop for Started<'_> {
    fn drop(&mut self) {
        self.0.process.end(&self.1, Duration::ZERO).unwrap();
    }
}

fn start<'s>(system: &'s Platform, script: &str, test: &str) -> Started<'s> {
    let arguments = ["-c".to_owned(), script.to_owned()];
    Started(
        system,
        system
            .process
            .start(&process_grant("sh", &["-c", script]), "sh", &arguments, &tag(test))
            .unwrap(),
    )
}

/// Waits for a file that a script writes, and returns its content.
fn written(path: &str) -> String {
    let start = Instant::now();
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ if start.elapsed() > LONG => panic!("{path} was not written"),
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

fn alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
}

#[test]
fn helper_runs_to_its_end_and_reports_its_code() {
    for fixture in Fixture::all() {
        let output = Output {
            code: 3,
            stdout: b"out\n".into(),
            stderr: b"err\n".into(),
        };
        fixture.shell(Program::Ends(output.clone()));
        assert_eq!(
            run(&fixture, "echo out; echo err >&2; exit 3", "run"),
            Ok(output),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn ungranted_helper_is_not_run() {
    for fixture in Fixture::all() {
        let grant = process_grant("sh", &["-c", "exit 0"]);
        let denied = |helper: &str, arguments: &[&str]| {
            let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
            let ran = fixture
                .system
                .process
                .run(&grant, helper, &arguments, &tag("denied"), LONG);
            assert!(
                matches!(ran, Err(Error::Denied(_))),
                "{}: {helper} {arguments:?}: {ran:?}",
                fixture.name
            );
            let started = fixture.system.process.start(&grant, helper, &arguments, &tag("denied"));
            assert!(
                matches!(started, Err(Error::Denied(_))),
                "{}: {helper} {arguments:?}",
                fixture.name
            );
        };
        denied("bash", &["-c", "exit 0"]);
        denied("sh", &["-c", "exit 1"]);
        denied("sh", &["-c"]);
        denied("sh", &["-c", "exit 0", "more"]);
        denied("sh", &["-c", "exit 0\0"]);
        denied("/bin/sh", &["-c", "exit 0"]);
    }
}

#[test]
fn missing_helper_is_reported() {
    use xenplug_system::grant::{HelperRule, Operator, ProcessGrant};
    for fixture in Fixture::all() {
        let rule = HelperRule {
            name: "none".into(),
            path: fixture.path("none").into(),
            args: Vec::new(),
        };
        let grant = ProcessGrant::new(&Operator::of_configuration(), vec![rule]);
        match fixture.system.process.run(&grant, "none", &[], &tag("missing"), LONG) {
            Err(Error::NotFound(text)) => assert!(text.contains(&fixture.path("none")), "{text}"),
            other => panic!("{}: {other:?}", fixture.name),
        }
        assert!(matches!(
            fixture.system.process.start(&grant, "none", &[], &tag("missing")),
            Err(Error::NotFound(_))
        ));
    }
}

#[test]
fn background_helper_is_found_and_ended_by_the_next_daemon() {
    for fixture in Fixture::all() {
        fixture.shell(Program::Stays);
        let script = "while :; do sleep 1; done";
        let one = start(&fixture.system, script, "find");
        let two = start(&fixture.system, script, "find");
        let other = start(&fixture.system, script, "other");
        for helper in [&one.1, &two.1, &other.1] {
            assert!(fixture.system.process.running(helper), "{}", fixture.name);
        }
        let daemon = fixture.another();
        // Between fork and exec a helper does not have its environment yet.
        let start = Instant::now();
        let mut found = daemon.process.find(&tag("find")).unwrap();
        while found.len() < 2 && start.elapsed() < LONG {
            found = daemon.process.find(&tag("find")).unwrap();
        }
        let mut expected = [one.1.clone(), two.1.clone()];
        expected.sort_by_key(|helper| helper.pid);
        assert_eq!(found, expected, "{}", fixture.name);
        daemon.process.end(&one.1, LONG).unwrap();
        assert!(!daemon.process.running(&one.1));
        assert!(!fixture.system.process.running(&one.1));
        assert!(
            fixture.system.process.running(&two.1) && fixture.system.process.running(&other.1),
            "{}",
            fixture.name
        );
        fixture.system.process.end(&one.1, LONG).unwrap();
        let reused = HelperProcess {
            started: two.1.started + 1,
            tag: "another's".into(),
            ..two.1.clone()
        };
        assert!(!fixture.system.process.running(&reused));
        fixture.system.process.end(&reused, Duration::ZERO).unwrap();
        assert!(
            fixture.system.process.running(&two.1),
            "{}: the number alone does not identify a helper",
            fixture.name
        );
    }
}

#[test]
fn helper_that_ended_by_itself_is_not_running() {
    let fixture = Fixture::linux();
    let helper = start(&fixture.system, "exit 0", "short");
    let start = Instant::now();
    while fixture.system.process.running(&helper.1) {
        assert!(start.elapsed() < LONG);
    }
    assert_eq!(fixture.system.process.find(&tag("short")).unwrap(), []);
}

#[test]
fn helper_output_is_read_by_the_next_daemon() {
    let fixture = Fixture::linux();
    let path = fixture.path("output");
    let script =
        format!("echo one; echo two >&2; echo . >{path}; read line <{path}.go; echo three; echo . >>{path}; sleep 60");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        format!("{path}.go"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let started = start(&fixture.system, &script, "read");
    written(&path);
    let output = |system: &Platform, helper: &HelperProcess| String::from_utf8(system.process.output(helper)).unwrap();
    assert_eq!(output(&fixture.system, &started.1), "one\ntwo\n");
    assert_eq!(output(&fixture.system, &started.1), "");
    let next = Platform::linux().unwrap();
    fs::write(format!("{path}.go"), "\n").unwrap();
    while !written(&path).contains(".\n.\n") {}
    assert_eq!(output(&next, &started.1), "three\n");

    // A later process with the same number is not the helper.
    let another = HelperProcess {
        started: started.1.started + 1,
        ..started.1.clone()
    };
    assert_eq!(output(&Platform::linux().unwrap(), &another), "");
}

#[test]
fn unread_helper_goes_on_and_loses_excess_output() {
    let fixture = Fixture::linux();
    let path = fixture.path("output");
    let script = format!("dd if=/dev/zero bs=4k count=100 2>/dev/null; echo $? >{path}; sleep 60");
    let started = start(&fixture.system, &script, "unread");
    assert_ne!(written(&path), "0\n", "the pipe takes less than that");
    assert_eq!(fixture.system.process.output(&started.1).len(), OUTPUT_MAX);
    assert!(fixture.system.process.running(&started.1));
}

#[test]
fn helper_inherits_nothing_of_the_daemon() {
    let fixture = Fixture::linux();
    let file = fs::File::open("/proc/self/exe").unwrap();
    // Without the close-on-exec flag.
    let leak = rustix::io::dup(&file).unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    assert!(leak.as_raw_fd() > 2);
    let script = "for fd in /proc/$$/fd/*; do readlink $fd; done; echo; cut -d' ' -f1,5,6 /proc/$$/stat; echo $$; \
                  pwd; umask; grep -E 'SigBlk|SigIgn' /proc/self/status; env | sort";
    let output = run(&fixture, script, "clean").unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = output.lines().collect();
    let (fds, rest) = lines.split_at(lines.iter().position(|line| line.is_empty()).unwrap());
    assert_eq!(fds[0], "/dev/null");
    assert!(
        fds[1..]
            .iter()
            .all(|fd| fd.starts_with("pipe:") || fd.starts_with("/proc/")),
        "{fds:?}"
    );
    let pid = rest[2];
    assert_eq!(rest[1], format!("{pid} {pid} {pid}"), "it leads a group and a session");
    assert_eq!(rest[3..5], ["/", "0022"]);
    for line in &rest[5..7] {
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
    let environment: Vec<_> = rest[7..]
        .iter()
        .filter(|variable| !variable.starts_with("_="))
        .copied()
        .collect();
    let leader = format!("XENPLUG_LEADER={pid:0>10}");
    let own_tag = format!("XENPLUG_TAG={}", tag("clean"));
    assert_eq!(
        environment,
        [
            "LANG=C",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PWD=/",
            "XENPLUG_HELPER=sh",
            leader.as_str(),
            own_tag.as_str(),
        ]
    );
}

#[test]
fn killed_helper_reports_the_signal() {
    let fixture = Fixture::linux();
    assert_eq!(run(&fixture, "kill -9 $$", "signal").unwrap().code, 137);
}

#[test]
fn flood_of_output_is_cut_and_does_not_stop_the_helper() {
    let fixture = Fixture::linux();
    let script = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 7";
    let output = run(&fixture, script, "flood").unwrap();
    assert_eq!(
        (output.code, output.stdout.len(), output.stderr.len()),
        (7, 65536, 65536)
    );
}

#[test]
fn inherited_output_pipe_is_not_waited_for() {
    let fixture = Fixture::linux();
    let start = Instant::now();
    let output = run(&fixture, "echo before; (sleep 60) & echo $!", "background").unwrap();
    assert!(start.elapsed() < LONG);
    let text = String::from_utf8(output.stdout).unwrap();
    let (before, pid) = text.split_once('\n').unwrap();
    assert_eq!(before, "before");
    assert!(alive(pid), "what it left running goes on");
    let left = fixture.system.process.find(&tag("background")).unwrap();
    assert_eq!(left.len(), 1);
    assert!(!fixture.system.process.running(&left[0]));
    fixture.system.process.end(&left[0], Duration::ZERO).unwrap();
    assert!(!alive(pid));
    assert_eq!(fixture.system.process.find(&tag("background")).unwrap(), []);
}

#[test]
fn helper_over_its_limit_is_ended_with_its_tree() {
    let fixture = Fixture::linux();
    let path = fixture.path("pids");
    let script = format!("trap '' TERM; (sleep 100 & echo $!; wait) >{path} & sleep 100");
    let start = Instant::now();
    match run_for(&fixture.system, &script, "limit", Duration::from_millis(300)) {
        Err(Error::Kernel { what, source_text, .. }) => {
            assert_eq!(what, "run the helper \"sh\"");
            assert_eq!(source_text, "it had not ended after 300ms, and was killed");
        }
        other => panic!("{other:?}"),
    }
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!alive(&written(&path)));
    assert_eq!(fixture.system.process.find(&tag("limit")).unwrap(), []);
}

#[test]
fn helper_may_end_by_itself_after_sigterm() {
    let fixture = Fixture::linux();
    let path = fixture.path("farewell");
    let script =
        format!("trap 'echo bye >{path}; exit 0' TERM; echo ready >{path}.ready; while :; do sleep 0.01; done");
    let helper = start(&fixture.system, &script, "grace");
    written(&format!("{path}.ready"));
    let start = Instant::now();
    fixture.system.process.end(&helper.1, LONG).unwrap();
    assert!(start.elapsed() < LONG, "the helper was not killed after the grace time");
    assert_eq!(written(&path), "bye\n");
}

#[test]
fn daemonized_helper_is_ended_with_its_tree() {
    // In a session of its own, forked twice, with an empty environment, ignoring SIGTERM.
    for (name, away) in [
        ("session", "setsid sh -c 'echo $$ >PATH; exec sleep 100' & "),
        (
            "orphan",
            "(setsid sh -c '(sh -c \"echo \\$\\$ >PATH; exec sleep 100\" &) ; exit' &) ; ",
        ),
        ("environment", "env -i setsid sh -c 'echo $$ >PATH; exec sleep 100' & "),
        (
            "ignores-sigterm",
            "setsid sh -c 'trap \"\" TERM; echo $$ >PATH; while :; do sleep 1; done' & ",
        ),
    ] {
        let fixture = Fixture::linux();
        let path = fixture.path("pid");
        let script = away.replace("PATH", &path) + "sleep 100";
        let helper = start(&fixture.system, &script, name);
        let pid = written(&path);
        assert!(alive(&pid), "{name}");
        fixture
            .system
            .process
            .end(&helper.1, Duration::from_millis(50))
            .unwrap();
        assert!(!alive(&pid), "{name}");
        assert!(!fixture.system.process.running(&helper.1), "{name}");
        assert_eq!(fixture.system.process.find(&tag(name)).unwrap(), [], "{name}");
    }
}

#[test]
fn no_zombie_and_no_cgroup_remains() {
    use xenplug_system::grant::{HelperRule, Operator, ProcessGrant};
    let fixture = Fixture::linux();
    let parent = own_cgroup();
    // Another daemon on the host may have left an empty cgroup.
    let foreign = parent.as_ref().map(|parent| Foreign::new(parent));
    let foreign_name = foreign.as_ref().map(Foreign::name);
    let before: Vec<_> = parent.iter().flat_map(|parent| empty_cgroups(parent)).collect();
    let helper = start(&fixture.system, "exit 0", "zombie");
    let pid = helper.1.pid;
    drop(helper);
    run(&fixture, "exit 0", "zombie").unwrap();
    let rule = HelperRule {
        name: "no-program".into(),
        path: "/etc/passwd".into(),
        args: Vec::new(),
    };
    let grant = ProcessGrant::new(&Operator::of_configuration(), vec![rule]);
    let refused = fixture.system.process.start(&grant, "no-program", &[], &tag("zombie"));
    assert!(matches!(refused, Err(Error::NotFound(_))), "{refused:?}");
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    let Some(parent) = parent else { return };
    assert!(
        before.iter().any(|name| Some(name) == foreign_name.as_ref()),
        "{before:?}"
    );
    // Other tests have cgroups at the same time. Only those that stay empty for a while are left over.
    let once = empty_cgroups(&parent);
    std::thread::sleep(Duration::from_millis(500));
    let twice = empty_cgroups(&parent).into_iter().filter(|name| once.contains(name));
    let left: Vec<_> = twice.filter(|name| !before.contains(name)).collect();
    assert_eq!(left, [""; 0]);
}

/// Returns the directory of this process's cgroup, if the host has cgroup v2.
fn own_cgroup() -> Option<std::path::PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    Some(std::path::Path::new(mount.split(' ').nth(1).unwrap()).join(own))
}

/// Returns the names of helpers' cgroups without a member.
fn empty_cgroups(parent: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(parent).unwrap().filter_map(|entry| entry.ok());
    let helpers = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("xenplug-"));
    let members = |path: std::path::PathBuf| fs::read_to_string(path.join("cgroup.procs"));
    let empty = helpers.filter(|entry| members(entry.path()).is_ok_and(|members| members.is_empty()));
    empty
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A cgroup like those of another daemon, removed on drop.
struct Foreign(std::path::PathBuf);

impl Foreign {
    fn new(parent: &std::path::Path) -> Self {
        // No process has such a number.
        let path = parent.join(format!("xenplug-{:010}", 4_200_000_000 + u64::from(std::process::id())));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn name(&self) -> String {
        self.0.file_name().unwrap().to_string_lossy().into_owned()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
