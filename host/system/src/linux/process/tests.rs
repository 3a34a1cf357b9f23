//! Tests without cgroups, in which the daemon finds the helper's tree by other means.

use std::{fs, path::PathBuf};

use super::*;
use crate::grant::{HelperRule, Operator};

#[test]
fn helper_tree_is_ended_without_cgroups() {
    let directory = tempfile::tempdir().expect("a directory");
    let written = directory.path().join("pid");
    for (name, away) in [
        ("child", "(echo $$; sleep 100) >PATH & "),
        ("session", "setsid sh -c 'echo $$ >PATH; exec sleep 100' & "),
        (
            "orphan",
            "(setsid sh -c '(sh -c \"echo \\$\\$ >PATH; exec sleep 100\" &) ; exit' &) ; ",
        ),
        ("environment", "env -i setsid sh -c 'echo $$ >PATH; exec sleep 100' & "),
    ] {
        let script = away.replace("PATH", &written.display().to_string()) + "sleep 100";
        let processes = LinuxProcess {
            cgroups: Cgroups::none(),
            children: Mutex::default(),
            output_pipes: OutputPipes::default(),
        };
        let arguments = vec!["-c".to_owned(), script];
        let rule = HelperRule {
            name: "sh".into(),
            path: PathBuf::from("/bin/sh"),
            args: arguments.clone(),
        };
        let grant = ProcessGrant::new(&Operator::of_configuration(), vec![rule]);
        let tag = format!("xenplug-unit-{}-{name}", std::process::id());
        let helper = processes.start(&grant, "sh", &arguments, &tag).expect("granted");
        let start = Instant::now();
        let pid = loop {
            match fs::read_to_string(&written).unwrap_or_default().trim().parse() {
                Ok(pid) => break pid,
                Err(_) => assert!(start.elapsed() < Duration::from_secs(20), "{name}: nothing was written"),
            }
        };
        let was_alive = Member::of(pid).is_some();
        processes.end(&helper, Duration::ZERO).expect("it can be killed");
        assert!(was_alive && Member::of(pid).is_none(), "{name}");
        assert_eq!(processes.find(&tag), Ok(Vec::new()), "{name}");
        fs::remove_file(&written).expect("it was written");
    }
}
