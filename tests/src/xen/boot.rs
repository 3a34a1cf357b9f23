//! One boot of Xen: from power on to the last scenario, within a time limit, with nothing left afterwards.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{BackendIn, Parts, Scenario, Side, root};

/// How long domains may take to come up.
const START: Duration = Duration::from_secs(600);
/// How long nothing may be heard of a scenario. It ends with its boot, as nothing else would be sure to end it.
const SILENCE: Duration = Duration::from_secs(600);

/// A machine that is to be switched on.
pub(super) struct Boot<'a> {
    /// Where its backends are.
    pub place: BackendIn,
    /// Who attaches its devices.
    pub side: Side,
    /// What it runs, in this order.
    pub scenarios: Vec<&'a Scenario>,
    /// How often the scenarios repeat what they repeat; each as it likes without it.
    pub rounds: Option<u32>,
}

/// How a scenario went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Passed,
    /// Otherwise: why.
    Failed(String),
    /// There is nothing of the kind on that side: why.
    Absent(String),
}

/// A scenario that was run.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its name.
    pub scenario: String,
    /// Where.
    pub place: BackendIn,
    /// By whom.
    pub side: Side,
    /// How it ended.
    pub outcome: Outcome,
    /// Seconds, with what it set up and took down.
    pub seconds: f64,
    /// Its steps, and the seconds of each.
    pub steps: Vec<(String, f64)>,
    /// What it counted, by what it looked for.
    pub counts: Vec<(String, String)>,
    /// What it saw on the way, by what it looked for.
    pub found: Vec<(String, String)>,
}

/// Puts together what boots are made of. Once, before the first.
pub(super) fn assemble(parts: &Parts, qemu: bool) -> Result<()> {
    root::assemble(parts, &Parts::workplace()?.join("parts"), qemu)
}

/// The emulator, which ends with this value.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Boot<'_> {
    /// Where its logs are.
    pub(super) fn folder(&self) -> Result<PathBuf> {
        Ok(Parts::workplace()?.join(format!("{}-{}", self.place.name(), self.side.name())))
    }

    /// Boots and runs all scenarios. `tell` hears of each as it ends. One that hangs ends the boot, and is told as
    /// failed, like those that come after it.
    pub(super) fn run(&self, parts: &Parts, tell: &dyn Fn(&Ran)) -> Result<Vec<Ran>> {
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
            if reader.read(tell)? {
                limit = Instant::now() + SILENCE;
            }
            if reader.over {
                break None;
            }
            if let Some(status) = emulator.0.try_wait()? {
                reader.read(tell)?;
                break (!reader.over).then(|| format!("the machine went off ({status})"));
            }
            if Instant::now() > limit {
                break Some("it hung, and was switched off".to_owned());
            }
            sleep(Duration::from_millis(200));
        };
        // Its logs are on their way until it goes off.
        let patience = Instant::now() + Duration::from_secs(10);
        while end.is_none() && emulator.0.try_wait()?.is_none() && Instant::now() < patience {
            sleep(Duration::from_millis(100));
        }
        drop(emulator);
        Ok(reader.finish(end.as_deref(), tell))
    }

    /// qemu's command line. A Nehalem has no AVX, whose state the emulation corrupts when PV domains switch.
    fn command(&self, parts: &Parts, out: &Path) -> Result<std::process::Command> {
        let from = Parts::workplace()?.join("parts");
        let path = |name: &str| from.join(name).display().to_string();
        ensure!(!path("").contains(','), "qemu takes no path with a comma: {}", path(""));
        // Its end comes with ours, however that comes.
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

/// Follows what dom0 writes into `results`: lines of words parted by tabs.
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

    /// Takes what is new; whether there was any.
    fn read(&mut self, tell: &dyn Fn(&Ran)) -> Result<bool> {
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
                        tell(&ran);
                        self.ran.push(ran);
                    }
                }
                (["over"], _) => self.over = true,
                _ => {}
            }
        }
        Ok(whole > 0)
    }

    /// What ran, and what did not because of `why`.
    fn finish(mut self, why: Option<&str>, tell: &dyn Fn(&Ran)) -> Vec<Ran> {
        if let Some(ran) = self.current.take() {
            self.ran.push(ran);
            if let Some(last) = self.ran.last_mut() {
                last.outcome = Outcome::Failed(why.unwrap_or("it did not end").to_owned());
                tell(last);
            }
        }
        for scenario in self.boot.scenarios.iter().skip(self.ran.len()) {
            let mut ran = self.boot.begun(&scenario.name);
            ran.outcome = Outcome::Failed(format!("not run: {}", why.unwrap_or("the domains did not come up")));
            tell(&ran);
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
