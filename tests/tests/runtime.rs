//! Plugins on a simulated host, without a daemon. Every effect is journaled before it is made, and undone from the
//! journal.

use std::{collections::BTreeMap, env, fs, process::Command, sync::Arc};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xenplug_journal::Journal;
use xenplug_runtime::{
    Cache, Cancel, Compiler, Connected, Device, DeviceResources, Engine, Fault, Grants, Header, HostAccess, Limits,
    Plugin, PluginSpec, Resource, SharedResources,
};
use xenplug_system::{
    Error, Platform,
    grant::{Access, BlockGrant, HelperRule, Operator, PathRule, ProcessGrant},
    process::Output,
    simulated::{Operation, Program, SimHost},
};
use xenplug_tests::harness::plugins_directory;
use xenplug_xenbus::{DeviceKey, DomId, Identity, ScriptName, VifType};

const IMAGE: &str = "/srv/a.img";

/// Plugin with a disk image on a simulated host, and a real journal.
struct Fixture {
    plugin: Plugin,
    host: Arc<SimHost>,
    system: Platform,
    shared: Arc<SharedResources>,
    journal: Journal,
    directory: TempDir,
    runtime: Runtime,
}

/// Returns the helpers that can be turned on and off, and `stuck`, which cannot be turned off.
fn switches() -> Vec<HelperRule> {
    [("switch", "on"), ("switch", "off"), ("stuck", "on")]
        .map(|(name, state)| HelperRule {
            name: name.to_owned(),
            path: "/srv/switch".into(),
            args: vec![state.to_owned()],
        })
        .into()
}

impl Fixture {
    fn new(component: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let (system, host) = Platform::simulated();
        host.add_file(IMAGE, 4 << 20);
        host.add_file("/etc/shadow", 4 << 10);
        let shared = Arc::<SharedResources>::default();
        let rule = PathRule {
            path: "/srv".into(),
            access: Access::ReadWrite,
        };
        let spec = PluginSpec {
            name: "disks".to_owned(),
            component: plugins_directory()?.join(component),
            grants: Grants {
                block: Some(BlockGrant::new(&Operator::of_configuration(), vec![rule], true)),
                process: Some(ProcessGrant::new(&Operator::of_configuration(), switches())),
                ..Grants::default()
            },
            limits: Limits::default(),
            config: Default::default(),
        };
        let runtime = Runtime::new()?;
        let plugin = {
            let _within = runtime.enter();
            let cache = Cache::open(&directory.path().join("cache"), Compiler::InProcess)?;
            Plugin::load(&Engine::new()?, &cache, &system, &shared, spec)?
        };
        let journal = Journal::open(&directory.path().join("journal"))?;
        Ok(Self {
            plugin,
            host,
            system,
            shared,
            journal,
            directory,
            runtime,
        })
    }

    fn begin(&self, key: &str) -> Result<DeviceResources> {
        let header = Header {
            identity: Identity {
                key: key.parse()?,
                vm: None,
            },
            plugin: "disks".to_owned(),
            vms: Vec::new(),
            introduced: true,
            vif_type: VifType::Paravirtual,
            parameters: BTreeMap::new(),
        };
        Ok(DeviceResources::begin(&self.journal, header)?)
    }

    fn connect(
        &self,
        resources: DeviceResources,
        params: &str,
        cancel: &Cancel,
    ) -> Result<(DeviceResources, Result<Connected, Fault>)> {
        let key: DeviceKey = resources.header().identity.key.clone();
        let nodes = [("params", params), ("mode", "w")];
        let device = Device {
            key,
            backend: DomId(0),
            script: ScriptName::parse("block")?,
            nodes: BTreeMap::from(nodes.map(|(name, value)| (name.to_owned(), value.to_owned()))),
            vif_type: VifType::Paravirtual,
            parameters: BTreeMap::new(),
            vms: Vec::new(),
            vm: None,
            vm_name: None,
        };
        let _within = self.runtime.enter();
        Ok(self.plugin.connect(Arc::new(device), resources, cancel))
    }

    fn release(&self, resources: &mut DeviceResources) -> Vec<String> {
        resources.release(HostAccess {
            platform: &self.system,
            grants: &Grants::to_release(&Operator::of_configuration()),
            shared: &self.shared,
        })
    }

    /// Reads the only record on disk: the entries of its lines in order, with the kind of each effect.
    fn record(&self) -> Result<Vec<String>> {
        let path = self.directory.path().join("journal/vbd-3-51712.record");
        fs::read_to_string(path)?
            .lines()
            .skip(1)
            .map(|line| {
                let (_, json) = line.split_once(' ').context("a checksum stands before it")?;
                let entry: serde_json::Value = serde_json::from_str(json)?;
                let (word, what) = entry["e"]
                    .as_object()
                    .and_then(|e| e.iter().next())
                    .context("an entry")?;
                let effect = what.as_array().and_then(|parts| parts.last()).unwrap_or(what);
                let kind = effect.as_object().and_then(|effect| effect.keys().next());
                Ok(format!(
                    "{word} {}",
                    kind.cloned().unwrap_or_else(|| effect.to_string())
                ))
            })
            .collect()
    }
}

#[test]
fn effects_are_journaled_first_and_released_in_reverse() -> Result<()> {
    let fixture = Fixture::new("phy.wasm")?;
    let before = fixture.host.snapshot();
    let (mut resources, answer) = fixture.connect(fixture.begin("vbd/3/51712")?, IMAGE, &Cancel::default())?;
    assert!(
        answer?
            .connection
            .backend
            .contains(&("physical-device".to_owned(), "7:0".to_owned()))
    );
    assert_eq!(fixture.host.loops().len(), 1);
    assert_eq!(
        fixture.record()?,
        ["intent claim", "completed claim", "intent loop", "completed loop"]
    );

    // The next daemon would find these resources.
    let held = fixture.journal.replay::<Header, Resource>()?.records.remove(0).held;
    ensure!(held[1].completed, "{held:?}");
    assert_eq!(held[1].effect.describe(), format!("/dev/loop0 on {IMAGE}"));
    let (claim, attached) = (held[0].seq, held[1].seq);

    assert_eq!(fixture.release(&mut resources), [""; 0]);
    let record = fixture.record()?;
    assert_eq!(
        record[4..],
        [
            r#"note "releasing""#.to_owned(),
            format!("released {attached}"),
            format!("released {claim}")
        ]
    );
    assert_eq!(fixture.host.snapshot(), before);
    resources.end()?;
    ensure!(fixture.record().is_err(), "the record has ended");
    Ok(())
}

#[test]
fn kernel_error_fails_the_device_and_leaves_nothing() -> Result<()> {
    let fixture = Fixture::new("phy.wasm")?;
    let before = fixture.host.snapshot();
    for (operation, effects) in [
        (Operation::Open, &[][..]),
        (Operation::UsedBy, &[]),
        (
            Operation::AttachLoop,
            &["intent claim", "completed claim", "intent loop"],
        ),
    ] {
        fixture
            .host
            .fail(operation, 1, Error::Busy("the kernel is tired".to_owned()));
        let (mut resources, answer) = fixture.connect(fixture.begin("vbd/3/51712")?, IMAGE, &Cancel::default())?;
        let fault = answer.err().with_context(|| format!("{operation:?} failed"))?;
        ensure!(
            fault.to_string().contains("the kernel is tired"),
            "{operation:?}: {fault}"
        );
        assert_eq!(fixture.record()?, effects, "{operation:?}");
        assert_eq!(fixture.release(&mut resources), [""; 0]);
        assert_eq!(fixture.host.snapshot(), before, "{operation:?}");
        resources.end()?;
    }
    // The claim is released too: another guest can have the disk.
    let (mut other, answer) = fixture.connect(fixture.begin("vbd/4/51712")?, IMAGE, &Cancel::default())?;
    answer?;
    fixture.release(&mut other);
    Ok(())
}

#[test]
fn failed_release_stays_held_and_the_rest_is_released() -> Result<()> {
    let fixture = Fixture::new("phy.wasm")?;
    let before = fixture.host.snapshot();
    let (mut resources, answer) = fixture.connect(fixture.begin("vbd/3/51712")?, IMAGE, &Cancel::default())?;
    answer?;
    fixture
        .host
        .fail(Operation::DetachLoop, 1, Error::Busy("not now".to_owned()));
    let failures = fixture.release(&mut resources);
    ensure!(
        failures.len() == 1 && failures[0].contains("loop0") && failures[0].contains("not now"),
        "{failures:?}"
    );
    assert_eq!(resources.describe().len(), 1, "the claim is released");
    ensure!(!resources.is_empty());
    assert_eq!(fixture.release(&mut resources), [""; 0]);
    assert_eq!(fixture.host.snapshot(), before);
    Ok(resources.end()?)
}

#[test]
fn effects_of_a_failed_handler_are_undone_without_it() -> Result<()> {
    for (guest, words) in [
        ("trap-after-loop", "crashed"),
        ("loop-hoard", "more than a device may hold (128)"),
    ] {
        let fixture = Fixture::new(&format!("guests/{guest}.wasm"))?;
        let before = fixture.host.snapshot();
        let (mut resources, answer) = fixture.connect(fixture.begin("vbd/3/51712")?, IMAGE, &Cancel::default())?;
        let fault = answer.err().context("it fails")?;
        ensure!(fault.to_string().contains(words), "{fault}");
        ensure!(!fixture.host.loops().is_empty(), "{guest} attached loop devices");
        assert_eq!(fixture.release(&mut resources), [""; 0]);
        assert_eq!(fixture.host.snapshot(), before, "{guest}");
    }
    Ok(())
}

/// Returns a program that ends at once with this exit code.
fn exits(code: u32) -> Program {
    Program::Ends(Output {
        code,
        stdout: Vec::new(),
        stderr: b"it is stuck\n".to_vec(),
    })
}

#[test]
fn helper_effect_is_undone_by_its_journaled_call() -> Result<()> {
    let kernel = || Error::Kernel {
        what: "run".to_owned(),
        errno: None,
        source_text: "it was killed".to_owned(),
    };
    for (what, params, code, crash, record, runs) in [
        (
            "it did it",
            "switch",
            Some(0),
            false,
            &["intent command", "completed command"][..],
            &["switch on", "switch off"][..],
        ),
        (
            "the daemon died between",
            "switch",
            Some(0),
            true,
            &["intent command"],
            &["switch off"],
        ),
        (
            "it failed, and did nothing",
            "switch",
            Some(1),
            false,
            &["intent command", "completed command", "released 1"],
            &["switch on"],
        ),
        (
            "it failed, and did a part",
            "switch!",
            Some(3),
            false,
            &["intent command", "completed command"],
            &["switch on", "switch off"],
        ),
        (
            "it is not installed",
            "switch",
            None,
            false,
            &["intent command", "released 1"],
            &[],
        ),
        ("its undoing is not granted", "stuck", Some(0), false, &[], &[]),
        ("it is not granted", "cat", Some(0), false, &[], &[]),
    ] {
        let fixture = Fixture::new("guests/trap-after-apply.wasm")?;
        if let Some(code) = code {
            fixture.host.add_program("/srv/switch", exits(code));
        }
        if crash {
            fixture.host.fail(Operation::Run, 1, kernel());
        }
        let (resources, answer) = fixture.connect(fixture.begin("vbd/3/51712")?, params, &Cancel::default())?;
        ensure!(answer.is_err(), "{what}");
        let found: Vec<String> = fixture.record()?;
        let kinds: Vec<&str> = found
            .iter()
            .map(|line| {
                if line.starts_with("released") {
                    "released 1"
                } else {
                    line
                }
            })
            .collect();
        assert_eq!(kinds, record, "{what}");

        // The next daemon's configuration has no such helper.
        drop(resources);
        let mut records = fixture.journal.replay::<Header, Resource>()?.records;
        let mut resources = DeviceResources::resume(records.remove(0), &fixture.shared);
        assert_eq!(fixture.release(&mut resources), [""; 0], "{what}");
        assert_eq!(fixture.host.runs(), runs, "{what}");
        resources.end()?;
    }
    Ok(())
}

#[test]
fn failed_undo_is_retried() -> Result<()> {
    let fixture = Fixture::new("guests/trap-after-apply.wasm")?;
    fixture.host.add_program("/srv/switch", exits(0));
    let (mut resources, _) = fixture.connect(fixture.begin("vbd/3/51712")?, "switch", &Cancel::default())?;
    for program in [exits(1), Program::Stays] {
        fixture.host.add_program("/srv/switch", program);
        let failures = fixture.release(&mut resources);
        ensure!(
            failures.len() == 1 && failures[0].starts_with("the effect that switch off undoes: "),
            "{failures:?}"
        );
    }
    // The exit code that the guest declares for "it is off".
    fixture.host.add_program("/srv/switch", exits(3));
    assert_eq!(fixture.release(&mut resources), [""; 0]);
    assert_eq!(fixture.host.runs().len(), 4);
    Ok(resources.end()?)
}

#[test]
fn ungranted_path_is_denied_and_cancelled_event_does_nothing() -> Result<()> {
    let fixture = Fixture::new("phy.wasm")?;
    let before = fixture.host.snapshot();
    let cancelled = Cancel::default();
    cancelled.cancel();
    for (params, cancel, words) in [
        ("/etc/shadow", Cancel::default(), "/etc/shadow"),
        ("/srv/../etc/shadow", Cancel::default(), "params"),
        (IMAGE, cancelled, "the device went away"),
    ] {
        let (resources, answer) = fixture.connect(fixture.begin("vbd/3/51712")?, params, &cancel)?;
        let fault = answer.err().context("it fails")?;
        ensure!(fault.to_string().contains(words), "{params}: {fault}");
        assert_eq!(fixture.record()?, [""; 0], "{params}");
        assert_eq!(fixture.host.snapshot(), before, "{params}");
        resources.end()?;
    }
    Ok(())
}

/// Environment variable of the process whose files cannot grow.
const CHILD: &str = "XENPLUG_TEST_FILES_CANNOT_GROW";

#[test]
fn effects_without_a_journal_are_refused() -> Result<()> {
    if env::var_os(CHILD).is_some() {
        return with_a_full_journal();
    }
    // The limit is in blocks of 512 bytes. With SIGXFSZ ignored, a write beyond it fails as on a full file system.
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
        .arg(env::current_exe()?)
        .args(["--exact", "effects_without_a_journal_are_refused"])
        .env(CHILD, "1")
        .output()?;
    let message = String::from_utf8_lossy(&child.stdout);
    ensure!(child.status.success() && message.contains("1 passed"), "{message}");
    Ok(())
}

fn with_a_full_journal() -> Result<()> {
    let fixture = Fixture::new("phy.wasm")?;
    let before = fixture.host.snapshot();
    let mut resources = fixture.begin("vbd/3/51712")?;
    for length in [1000, 100, 0] {
        while resources.note(&"n".repeat(length)).is_ok() {}
    }
    let (mut resources, answer) = fixture.connect(resources, IMAGE, &Cancel::default())?;
    let fault = answer.err().context("it fails")?.to_string();
    ensure!(
        fault.contains("the journal cannot be written, so nothing was changed"),
        "{fault}"
    );
    assert_eq!(fixture.host.calls(Operation::AttachLoop), 0);
    assert_eq!(fixture.host.snapshot(), before);
    ensure!(resources.is_empty(), "{:?}", resources.describe());
    assert_eq!(fixture.release(&mut resources), [""; 0]);
    resources.end()?;
    // The claim is not left in memory either: with space, another guest can have the disk.
    let (_, answer) = fixture.connect(fixture.begin("vbd/4/51712")?, IMAGE, &Cancel::default())?;
    answer.map(drop).context("the disk is free")
}
