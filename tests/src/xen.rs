//! Scenarios on real Xen, on any host: Debian's Xen under qemu's emulation, with dom0, a driver domain and small
//! guests.
//!
//! A *scenario* is a shell script in `tests/xen/scenarios`. It runs in dom0, with the functions of `tests/xen/lib.sh`,
//! in two *places* (the backends in dom0, or in a driver domain) and for two *sides*: theirs, Xen's original scripts
//! and `xl devd`, and ours. One boot for each place and side runs its scenarios one after the other.
//!
//! Each boot has a folder of results: `results`, `consoles/`, `store-trace` with times, `logs/<scenario>/` with the
//! daemon's log and the store's content, `serial`, `run.log`.

mod archive;
mod boot;
mod kernel;
mod parts;
mod report;
mod root;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use boot::Boot;
pub use boot::{Outcome, Ran};
pub use parts::Parts;
pub use report::table;

/// Domain of the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackendIn {
    /// Driver domain, with `xl devd` or xenplugd.
    DriverDomain,
    /// dom0, where the toolstack runs the scripts.
    Dom0,
}

/// Software that connects the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// `xl devd` and the original scripts.
    Theirs,
    /// xenplugd and its shims.
    Ours,
}

impl BackendIn {
    /// All places, in the order of the table.
    pub const ALL: [Self; 2] = [Self::DriverDomain, Self::Dom0];

    /// Returns its name in scripts and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DriverDomain => "driver-domain",
            Self::Dom0 => "dom0",
        }
    }
}

impl Side {
    /// All sides, in the order of the table.
    pub const ALL: [Self; 2] = [Self::Theirs, Self::Ours];

    /// Returns its name in scripts and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Theirs => "theirs",
            Self::Ours => "ours",
        }
    }
}

/// Script of `tests/xen/scenarios`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Name of the file, without `.sh`.
    pub name: String,
    /// Title, from the first line.
    pub title: String,
    /// Places where it runs: both, unless a line says `# Only in: PLACE`.
    pub places: Vec<BackendIn>,
    /// True if it runs only when it is named on the command line: a line says `# Only by name.`.
    pub by_name: bool,
    /// True if domains have QEMU, which makes all of them larger and slower: a line says `# With QEMU.`.
    pub qemu: bool,
}

/// Returns the folder with the scripts.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("xen")
}

/// Returns the scenarios that run by default.
pub fn usual_scenarios() -> Result<Vec<Scenario>> {
    let all = scenarios()?.into_iter();
    Ok(all.filter(|scenario| !scenario.by_name).collect())
}

/// Returns all scenarios, in the order of their names.
pub fn scenarios() -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    let folder = folder().join("scenarios");
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sh") {
            scenarios.push(Scenario::read(&path).with_context(|| path.display().to_string())?);
        }
    }
    scenarios.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(scenarios)
}

impl Scenario {
    fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path)?;
        let title = text.lines().next().and_then(|line| line.strip_prefix("# "));
        let title = title.context("its first line is no comment with a title")?;
        let says = |line: &str| text.lines().any(|one| one == line);
        let only_in = text.lines().find_map(|line| line.strip_prefix("# Only in: "));
        let is_meant = |place: &BackendIn| only_in.is_none_or(|name| place.name() == name);
        let places: Vec<_> = BackendIn::ALL.into_iter().filter(is_meant).collect();
        ensure!(!places.is_empty(), "its `Only in` names no place");
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            title: title.to_owned(),
            places,
            by_name: says("# Only by name."),
            qemu: says("# With QEMU."),
        })
    }
}

/// Runs scenarios in these places and on these sides. `rounds` replaces the number of rounds of those that repeat
/// something. `on_end` is called with each scenario as it ends.
///
/// One host is emulated at a time: it needs two processors, and with fewer its domains have stalled.
pub fn run(
    scenarios: &[Scenario],
    places: &[BackendIn],
    sides: &[Side],
    rounds: Option<u32>,
    on_end: &dyn Fn(&Ran),
) -> Result<Vec<Ran>> {
    let parts = Parts::find()?;
    boot::assemble(&parts, scenarios.iter().any(|scenario| scenario.qemu))?;
    let mut report = Vec::new();
    for &place in places {
        for &side in sides {
            let scenarios: Vec<_> = scenarios.iter().filter(|one| one.places.contains(&place)).collect();
            if !scenarios.is_empty() {
                let boot = Boot {
                    place,
                    side,
                    scenarios,
                    rounds,
                };
                report.extend(boot.run(&parts, on_end)?);
            }
        }
    }
    Ok(report)
}

/// Returns true if no scenario failed on our side.
pub fn ours_passed(report: &[Ran]) -> bool {
    let mut ours = report.iter().filter(|ran| ran.side == Side::Ours);
    ours.all(|ran| !matches!(ran.outcome, Outcome::Failed(_)))
}

impl fmt::Display for Ran {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, side, scenario, seconds) = (self.place.name(), self.side.name(), &self.scenario, self.seconds);
        write!(to, "{place}, {side}, {scenario}: ")?;
        match &self.outcome {
            Outcome::Passed => write!(to, "passed in {seconds:.0} s"),
            Outcome::Failed(why) => write!(to, "FAILED in {seconds:.0} s: {why}"),
            Outcome::Absent(why) => write!(to, "does not apply: {why}"),
        }
    }
}
