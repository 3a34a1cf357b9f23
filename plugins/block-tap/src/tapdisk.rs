//! tapdisk of an image: found, or started step by step.

use xenplug_sdk::{Command, Error, Undo};

/// Exit codes of tap-ctl for a tapdisk or a disk of it that is gone: `ENOENT`, `ESRCH`, `ENXIO`,
/// `ENODEV`, `EINVAL`, `EPIPE`, `ECONNRESET`, `ECONNREFUSED`.
const GONE: [u32; 8] = [2, 3, 6, 19, 22, 32, 104, 111];

/// `EWOULDBLOCK`: a tapdisk uses the number (blktap, control/tap-ctl-free.c).
const IN_USE: u32 = 11;

/// A disk of a tapdisk process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tapdisk {
    pub(crate) pid: String,
    pub(crate) minor: String,
}

/// Output of `tap-ctl list`.
pub(crate) struct List(String);

impl List {
    /// Runs `tap-ctl list`.
    pub(crate) fn read() -> Result<Self, Error> {
        let list = tap_ctl().arg("list");
        Ok(Self(list.expect(list.run())?))
    }

    /// Finds the disk that has this image (`FORMAT:PATH`) open.
    pub(crate) fn serving(&self, image: &str) -> Option<Tapdisk> {
        self.0.lines().find_map(|line| {
            // The path is at the end, and may contain spaces.
            let (facts, args) = line.split_once("args=")?;
            (args == image).then_some(())?;
            Some(Tapdisk {
                pid: fact(facts, "pid=")?.to_owned(),
                minor: fact(facts, "minor=")?.to_owned(),
            })
        })
    }

    /// Returns the number that tap-ctl allocates next, the lowest without a marker (blktap,
    /// control/tap-ctl-allocate.c).
    fn next_minor(&self) -> u32 {
        let taken: Vec<u32> = self
            .0
            .lines()
            .filter_map(|line| fact(line.split("args=").next()?, "minor=")?.parse().ok())
            .collect();
        (0..).find(|minor| !taken.contains(minor)).unwrap_or_default()
    }
}

fn fact<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name))
}

impl Tapdisk {
    /// Starts a tapdisk that opens this image (`FORMAT:PATH`).
    ///
    /// The journal has the undo of the allocation before the number is known, for the expected number. If another
    /// handler allocates that number first, the last holder of the same undo frees it, unless it is in use. This
    /// handler gets another number, and has an undo for it too.
    pub(crate) fn start(list: &List, image: &str, read_only: bool) -> Result<Self, Error> {
        let expected = list.next_minor().to_string();
        let allocate = tap_ctl().arg("allocate");
        let answer = allocate.expect(allocate.apply(free(&expected).settled_by(IN_USE)))?;
        let minor = number(&answer)?.to_owned();
        // tapdisk runs in the background. It ends with its last disk, or the daemon ends it.
        let spawn = tap_ctl().arg("spawn");
        let pid = spawn.expect(spawn.apply(free(&minor).after_failure()))?;
        let tapdisk = Self {
            pid: process(&pid)?.to_owned(),
            minor,
        };
        let attach = tapdisk.command("attach");
        attach.expect(attach.apply(tapdisk.undo("detach")))?;
        let mut open = tapdisk.command("open").args(["-a", image]);
        if read_only {
            open = open.arg("-R");
        }
        open.expect(open.apply(tapdisk.undo("close")))?;
        Ok(tapdisk)
    }

    /// Shares a running tapdisk. Each user holds the undo commands, so that it ends with the last one.
    pub(crate) fn share(self) -> Result<Self, Error> {
        // A command without effect, to attach the undo commands to.
        let list = tap_ctl().arg("list");
        for undo in [free(&self.minor), self.undo("detach"), self.undo("close")] {
            list.expect(list.apply(undo))?;
        }
        Ok(self)
    }

    fn command(&self, word: &str) -> Command {
        tap_ctl().args([word, "-p", &self.pid, "-m", &self.minor])
    }

    fn undo(&self, word: &str) -> Undo {
        settled(self.command(word))
    }
}

fn tap_ctl() -> Command {
    Command::of("tap-ctl")
}

fn free(minor: &str) -> Undo {
    settled(tap_ctl().args(["free", "-m", minor]))
}

fn settled(command: Command) -> Undo {
    GONE.into_iter().fold(Undo::by(command), Undo::settled_by)
}

/// Parses the number in the output of `tap-ctl allocate`: a number, a path that ends in it
/// (`/run/blktap-control/tapdisk/tapdisk-3`), or the device of the old kernel module (`/dev/xen/blktap-2/tapdev3`).
fn number(answer: &str) -> Result<&str, Error> {
    let answer = answer.trim();
    let digits = answer.bytes().rev().take_while(u8::is_ascii_digit).count();
    Some(&answer[answer.len() - digits..])
        .filter(|number| !number.is_empty())
        .ok_or_else(|| Error::Other(format!("tap-ctl allocate answers `{answer}`, without a number")))
}

/// Parses the process id in the output of `tap-ctl spawn`.
fn process(answer: &str) -> Result<&str, Error> {
    Some(answer.trim())
        .filter(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| {
            Error::Other(format!(
                "tap-ctl spawn answers `{}`, which is no process",
                answer.trim()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_ctl_answers_are_parsed() {
        for (answer, minor) in [
            ("3\n", "3"),
            ("/run/blktap-control/tapdisk/tapdisk-12\n", "12"),
            ("/dev/xen/blktap-2/tapdev0", "0"),
        ] {
            assert_eq!(number(answer), Ok(minor));
        }
        assert!(number("").is_err() && number("tapdev").is_err());
        assert_eq!(process("1234\n"), Ok("1234"));
        assert!(process("").is_err() && process("-1").is_err() && process("a1").is_err());
    }

    #[test]
    fn tapdisk_list_is_parsed() {
        let list = List(
            "pid=10 minor=0 state=0 args=aio:/srv/a b.img\npid=11 minor=1 state=0x2 args=vhd:/srv/minor=7\n\
             pid=12\nminor=3\n"
                .to_owned(),
        );
        for (image, serving) in [
            ("aio:/srv/a b.img", Some(("10", "0"))),
            ("vhd:/srv/minor=7", Some(("11", "1"))),
            ("aio:/srv/a", None),
            ("vhd:/srv/a b.img", None),
        ] {
            let serving = serving.map(|(pid, minor)| Tapdisk {
                pid: pid.to_owned(),
                minor: minor.to_owned(),
            });
            assert_eq!(list.serving(image), serving, "{image}");
        }
        assert_eq!(list.next_minor(), 2);
        assert_eq!(List(String::new()).next_minor(), 0);
    }
}
