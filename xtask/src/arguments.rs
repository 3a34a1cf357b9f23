//! Arguments of `cargo xtask`, parsed without a library so that xtask itself compiles in seconds.

use anyhow::{Context, Result, bail};

use crate::{suite, trials};

/// Name, arguments and description of each task.
const TASKS: [(&str, &str, &str); 9] = [
    (
        "setup",
        "",
        "Fetches what is missing to build and test: the wasm target, Debian's Xen tools",
    ),
    (
        "components",
        "",
        "Builds the plugins' components alone, into target/plugins",
    ),
    ("build", "", "Builds all release binaries and components"),
    (
        "test",
        "[--quick] [ARGUMENTS]",
        "Runs every test; --quick leaves out real Xen and long simulations; other arguments go to `cargo test`, which runs \
         what they name in the root of Debian 12, or of 13 with XENPLUG_RELEASE=13",
    ),
    (
        "trials",
        "[--long] [--json] [FILTERS]",
        "Runs the fault suite of docs/reliability.md, whole or the rows (T14) and tests that filters name, and shows a table; \
         --long takes hours",
    ),
    (
        "fuzz",
        "[--seconds N] [--keep] [TARGETS]",
        "Fuzzes each target, or those named, for N seconds (60); --keep puts useful inputs into fuzz/corpus",
    ),
    ("demo", "[--simulated]", "Attaches a disk and a vif, and detaches them"),
    (
        "xen",
        "[ARGUMENTS]",
        "Boots real Xen under emulation and runs scenarios on it; --list names them",
    ),
    (
        "bench",
        "[ARGUMENTS]",
        "Measures the daemon against the original scripts and a floor",
    ),
];

/// Task with its arguments.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Setup,
    Components,
    Build,
    Test(suite::Arguments),
    Trials(trials::Arguments),
    Fuzz {
        targets: Vec<String>,
        seconds: u64,
        keep: bool,
    },
    Demo(Vec<String>),
    Xen(Vec<String>),
    Bench(Vec<String>),
    /// Text to print.
    Help(String),
}

impl Task {
    /// Parses the arguments that follow `cargo xtask`.
    pub(crate) fn parse(mut arguments: Vec<String>) -> Result<Self> {
        if arguments.is_empty() || is_help(&arguments[0]) {
            return Ok(Self::Help(overview()));
        }
        let name = arguments.remove(0);
        let task = TASKS.iter().find(|task| task.0 == name);
        let task = task.with_context(|| format!("there is no task `{name}`\n\n{}", overview()))?;
        if arguments.first().is_some_and(|first| is_help(first)) {
            return Ok(Self::Help(help(task)));
        }
        if arguments.first().is_some_and(|first| first == "--") {
            arguments.remove(0);
        }
        let unexpected = |argument: &str| format!("`{argument}` is unexpected\n\n{}", help(task));
        match &*name {
            "test" => {
                let quick = arguments.first().is_some_and(|first| first == "--quick");
                let cargo = arguments.split_off(usize::from(quick));
                return Ok(Self::Test(suite::Arguments { quick, cargo }));
            }
            "demo" => return Ok(Self::Demo(arguments)),
            "xen" => return Ok(Self::Xen(arguments)),
            "bench" => return Ok(Self::Bench(arguments)),
            _ => {}
        }
        let (mut long, mut json, mut keep, mut seconds) = (false, false, false, 60);
        let mut names = Vec::new();
        let mut rest = arguments.into_iter();
        while let Some(argument) = rest.next() {
            match (&*name, &*argument) {
                ("trials", "--long") => long = true,
                ("trials", "--json") => json = true,
                ("fuzz", "--keep") => keep = true,
                ("fuzz", "--seconds") => {
                    let number = rest.next().with_context(|| help(task))?;
                    seconds = number.parse().with_context(|| unexpected(&number))?;
                }
                ("trials" | "fuzz", word) if !word.starts_with('-') => names.push(argument),
                (_, word) => bail!(unexpected(word)),
            }
        }
        Ok(match &*name {
            "setup" => Self::Setup,
            "components" => Self::Components,
            "build" => Self::Build,
            "trials" => Self::Trials(trials::Arguments {
                long,
                json,
                filters: names,
            }),
            _ => Self::Fuzz {
                targets: names,
                seconds,
                keep,
            },
        })
    }
}

fn is_help(argument: &str) -> bool {
    matches!(argument, "--help" | "-h" | "help")
}

fn overview() -> String {
    let mut text = "cargo xtask TASK: builds, tests and shows Xenplug, with all the set-up that it needs\n".to_owned();
    for (name, _, about) in TASKS {
        text += &format!("\n  {name:<10}  {about}");
    }
    text
}

fn help((name, arguments, about): &(&str, &str, &str)) -> String {
    format!("cargo xtask {name} {arguments}\n\n{about}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task> {
        Task::parse(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn arguments_of_programs_are_passed_on() -> Result<()> {
        let all = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let test = |quick, words| {
            let cargo = all(words);
            Task::Test(suite::Arguments { quick, cargo })
        };
        assert_eq!(parsed("test -- -p a b")?, test(false, &["-p", "a", "b"]));
        assert_eq!(
            parsed("test a -- --nocapture")?,
            test(false, &["a", "--", "--nocapture"])
        );
        assert_eq!(parsed("test --quick")?, test(true, &[]));
        assert_eq!(parsed("demo --simulated")?, Task::Demo(all(&["--simulated"])));
        Ok(())
    }

    #[test]
    fn options_of_a_task_are_its_own() -> Result<()> {
        let trials = trials::Arguments {
            long: true,
            json: false,
            filters: vec!["T1".to_owned()],
        };
        assert_eq!(parsed("trials T1 --long")?, Task::Trials(trials));
        let fuzz = Task::Fuzz {
            targets: Vec::new(),
            seconds: 3,
            keep: false,
        };
        assert_eq!(parsed("fuzz --seconds 3")?, fuzz);
        for line in [
            "fuzz --long",
            "fuzz --seconds",
            "fuzz --seconds x",
            "build all",
            "no-task",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        Ok(())
    }

    #[test]
    fn help_names_the_command() -> Result<()> {
        for (name, _, about) in TASKS {
            let Task::Help(text) = parsed(&format!("{name} --help"))? else {
                bail!("no help for {name}");
            };
            assert!(text.contains(&format!("cargo xtask {name}")) && text.contains(about));
        }
        Ok(())
    }
}
