//! One boot of Xen: from power on to the last scenario, within a time limit. Nothing of it runs on afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{BackendIn, Parts, Scenario, Side, root};

/// Time limit for the domains to come up.
const START: Duration = Duration::from_secs(600);
/// Longest silence of a scenario. After it the boot ends, because nothing else ends a hung scenario for certain.
const SILENCE: Duration = Duration::from_secs(600);

/// Plan of a boot.
pub(super) struct Boot<'a> {
    /// Domain of the backends.
    pub place: BackendIn,
    /// Software that connects the devices.
    pub side: Side,
    /// Scenarios, in their order.
    pub scenarios: Vec<&'a Scenario>,
    /// Number of rounds of the scenarios that repeat something; by default each has its own.
    pub rounds: Option<u32>,
}

/// Result of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success.
    Passed,
    /// Failure, with its cause.
    Failed(String),
    /// The scenario does not apply to the side, for this reason.
    Absent(String),
}

/// Scenario with its result.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Name of the scenario.
    pub scenario: String,
    /// Domain of the backends.
    pub place: BackendIn,
    /// Software that connected the devices.
    pub side: Side,
    /// Result.
    pub outcome: Outcome,
    /// Seconds that it took, with its set-up and clean-up.
    pub seconds: f64,
    /// Steps, with the seconds of each.
    pub steps: Vec<(String, f64)>,
    /// Counts, by their names.
    pub counts: Vec<(String, String)>,
    /// Observations, by their names.
    pub found: Vec<(String, String)>,
}

/// Assembles the files of all boots. It runs once, before the first.
pub(super) fn assemble(parts: &Parts, qemu: bool) -> Result<()> {
    root::assemble(parts, &Parts::workplace()?.join("parts"), qemu)
}

/// Emulator process. Dropping it kills the process.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // The process may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Boot<'_> {
    /// Returns the folder of the boot's logs.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        Ok(Parts::workplace()?.join(format!("{}-{}", self.place.name(), self.side.name())))
    }

    /// Boots and runs all scenarios, and calls `on_end` with each as it ends. A scenario that hangs ends the boot. It
    /// counts as failed, like those after it.
    pub(super) fn run(&self, parts: &Parts, on_end: &dyn Fn(&Ran)) -> Result<Vec<Ran>> {
        let out = self.folder()?;
        match fs::remove_dir_all(&out) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context("earlier logs"),
            _ => fs::create_dir_all(&out)?,
        }
        let names: Vec<_> = self.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        let plan = format!(
            "place={}\nside={}\nscenarios='{}'\nrounds={}\n",
            self.place.name(),
            self.side.name(),
            names.join(" "),
            self.rounds.map(|rounds| rounds.to_string()).unwrap_or_default(),
        );
        fs::write(out.join("plan"), plan)?;
        fs::write(out.join("results"), "")?;

        let mut emulator = Emulator(self.command(parts, &out)?.spawn().context("qemu cannot be started")?);
        let mut reader = Reader::new(self, out.join("results"));
        let mut limit = Instant::now() + START;
        let end = loop {
            if reader.read(on_end)? {
                limit = Instant::now() + SILENCE;
            }
            if reader.over {
                break None;
            }
            if let Some(status) = emulator.0.try_wait()? {
                reader.read(on_end)?;
                break (!reader.over).then(|| format!("the emulated host stopped ({status})"));
            }
            if Instant::now() > limit {
                break Some("it hung, and the emulated host was killed".to_owned());
            }
            sleep(Duration::from_millis(200));
        };
        // dom0 writes its logs until the host stops.
        let until = Instant::now() + Duration::from_secs(10);
        while end.is_none() && emulator.0.try_wait()?.is_none() && Instant::now() < until {
            sleep(Duration::from_millis(100));
        }
        drop(emulator);
        Ok(reader.finish(end.as_deref(), on_end))
    }

    /// Returns qemu's command line. The processor is a Nehalem, which has no AVX: the emulation corrupts the state of
    /// AVX when PV domains switch.
    fn command(&self, parts: &Parts, out: &Path) -> Result<std::process::Command> {
        let from = Parts::workplace()?.join("parts");
        let path = |name: &str| from.join(name).display().to_string();
        ensure!(!path("").contains(','), "qemu takes no path with a comma: {}", path(""));
        // The kernel kills qemu when this process ends, for whatever reason.
        let mut qemu = std::process::Command::new("setpriv");
        qemu.args(["--pdeathsig", "KILL"]).arg(parts.emulator()?);
        parts.equip(&mut qemu);
        for firmware in ["usr/share/qemu", "usr/share/seabios"] {
            qemu.arg("-L").arg(parts.file(firmware));
        }
        qemu.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "Nehalem",
            "-smp",
            "2",
            "-m",
            "4096",
        ])
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-nic",
            "none",
        ])
        .args(["-kernel", &path("xen")])
        .args([
            "-initrd",
            &format!("{} console=hvc0 quiet role=dom0,{}", path("vmlinux"), path("root.cpio")),
        ])
        .args([
            "-append",
            "com1=115200,8n1 console=com1 dom0_mem=1500M,max:1500M dom0_max_vcpus=1",
        ])
        .args(["-serial", &format!("file:{}", out.join("serial").display())]);
        for (tag, folder, more) in [("out", out, ""), ("parts", from.as_path(), ",readonly=on")] {
            qemu.args([
                "-fsdev",
                &format!("local,id={tag},path={},security_model=none{more}", folder.display()),
            ])
            .args(["-device", &format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}")]);
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::null());
        qemu.stderr(fs::File::create(out.join("qemu.log"))?);
        Ok(qemu)
    }
}

/// Follows the lines that dom0 writes into `results`: words separated by tabs.
struct Reader<'a> {
    boot: &'a Boot<'a>,
    file: PathBuf,
    taken: usize,
    current: Option<Ran>,
    ran: Vec<Ran>,
    over: bool,
}

impl<'a> Reader<'a> {
    fn new(boot: &'a Boot<'a>, file: PathBuf) -> Self {
        Self {
            boot,
            file,
            taken: 0,
            current: None,
            ran: Vec::new(),
            over: false,
        }
    }

    /// Reads new lines. Returns true if there were any.
    fn read(&mut self, on_end: &dyn Fn(&Ran)) -> Result<bool> {
        let text = String::from_utf8_lossy(&fs::read(&self.file)?).into_owned();
        let new = text.get(self.taken..).unwrap_or_default();
        let whole = new.rfind('\n').map_or(0, |at| at + 1);
        self.taken += whole;
        for line in new[..whole].lines() {
            let words: Vec<_> = line.split('\t').collect();
            let seconds = |word: &str| word.parse().unwrap_or(f64::NAN);
            match (words.as_slice(), &mut self.current) {
                (["begin", name], current) => {
                    *current = Some(self.boot.begun(name));
                }
                (["step", _, name, time], Some(ran)) => ran.steps.push(((*name).to_owned(), seconds(time))),
                (["count", _, name, text], Some(ran)) => ran.counts.push(((*name).to_owned(), (*text).to_owned())),
                (["found", _, name, text], Some(ran)) => ran.found.push(((*name).to_owned(), (*text).to_owned())),
                (["end", _, status, time, text], current) => {
                    if let Some(mut ran) = current.take() {
                        ran.seconds = seconds(time);
                        ran.outcome = match *status {
                            "0" => Outcome::Passed,
                            "77" => Outcome::Absent((*text).trim_end_matches([';', ' ']).to_owned()),
                            _ => Outcome::Failed((*text).trim_end_matches([';', ' ']).to_owned()),
                        };
                        on_end(&ran);
                        self.ran.push(ran);
                    }
                }
                (["over"], _) => self.over = true,
                _ => {}
            }
        }
        Ok(whole > 0)
    }

    /// Returns the results of all scenarios. Those that did not run failed because of `why`.
    fn finish(mut self, why: Option<&str>, on_end: &dyn Fn(&Ran)) -> Vec<Ran> {
        if let Some(ran) = self.current.take() {
            self.ran.push(ran);
            if let Some(last) = self.ran.last_mut() {
                last.outcome = Outcome::Failed(why.unwrap_or("it did not end").to_owned());
                on_end(last);
            }
        }
        for scenario in self.boot.scenarios.iter().skip(self.ran.len()) {
            let mut ran = self.boot.begun(&scenario.name);
            ran.outcome = Outcome::Failed(format!("not run: {}", why.unwrap_or("the domains did not come up")));
            on_end(&ran);
            self.ran.push(ran);
        }
        self.ran
    }
}

impl Boot<'_> {
    fn begun(&self, scenario: &str) -> Ran {
        Ran {
            scenario: scenario.to_owned(),
            place: self.place,
            side: self.side,
            outcome: Outcome::Failed("it did not end".to_owned()),
            seconds: 0.0,
            steps: Vec::new(),
            counts: Vec::new(),
            found: Vec::new(),
        }
    }
}
