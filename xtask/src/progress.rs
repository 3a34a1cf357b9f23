//! Progress of a build on one line of the terminal, instead of cargo's hundreds.

use std::{
    io::{BufRead, BufReader, IsTerminal, stderr},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::terminal;

/// Interval at which the line changes on a terminal, and at which a line is written elsewhere.
const ON_A_TERMINAL: Duration = Duration::from_millis(250);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Number of units of a build.
#[derive(Clone, Copy)]
pub(crate) enum Units {
    Known(usize),
    Unknown,
}

impl Units {
    /// Asks cargo for the graph of a build. cargo's option is unstable, so its absence is no error.
    pub(crate) fn of(mut cargo: Command) -> Self {
        cargo
            .args(["--quiet", "-Zunstable-options", "--unit-graph"])
            .env("RUSTC_BOOTSTRAP", "1")
            .stderr(Stdio::null());
        let output = cargo.output().ok().filter(|output| output.status.success());
        let graph: Option<Value> = output.and_then(|output| serde_json::from_slice(&output.stdout).ok());
        let units = graph.as_ref().and_then(|graph| graph["units"].as_array());
        units.map_or(Self::Unknown, |units| Self::Known(units.len()))
    }
}

/// Runs a build by cargo, and shows its progress. The compiler's warnings and errors are shown as usual.
pub(crate) fn run(cargo: &mut Command, units: Units) -> Result<()> {
    cargo.args(["--quiet", "--message-format", "json-render-diagnostics"]);
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", terminal::line(cargo)))?;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    let (sender, finished) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some(name) = serde_json::from_str(&line).ok().as_ref().and_then(unit) {
                let _ = sender.send(name.to_owned());
            }
        }
    });
    show(&finished, units);
    reader.join().ok().context("the reader of cargo's messages panicked")?;
    let status = child.wait()?;
    if !status.success() {
        bail!("{} ended with {status}", terminal::line(cargo));
    }
    Ok(())
}

/// Shows the finished units until cargo ends.
fn show(finished: &mpsc::Receiver<String>, units: Units) {
    let is_terminal = stderr().is_terminal();
    let interval = if is_terminal { ON_A_TERMINAL } else { ELSEWHERE };
    let start = Instant::now();
    let (mut done, mut last) = (0, String::new());
    let mut shown = start;
    loop {
        let left = interval.saturating_sub(shown.elapsed());
        match finished.recv_timeout(left) {
            Ok(name) => {
                done += 1;
                last = name;
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                terminal::progress(&line(done, units, &last, start.elapsed()), is_terminal);
                shown = Instant::now();
            }
        }
    }
    terminal::progress(&line(done, units, "", start.elapsed()), is_terminal);
    if is_terminal {
        terminal::end_of_progress();
    }
}

fn line(done: usize, units: Units, last: &str, took: Duration) -> String {
    let of = match units {
        Units::Known(all) => format!("{done} of {} units", all.max(done)),
        Units::Unknown => format!("{done} units"),
    };
    let last = if last.is_empty() {
        String::new()
    } else {
        format!(", last {last}")
    };
    format!("{of} built, {} s{last}", took.as_secs())
}

/// Returns the crate that cargo's message reports as finished: compiled, or its build script run.
fn unit(message: &Value) -> Option<&str> {
    match message["reason"].as_str()? {
        "compiler-artifact" => message["target"]["name"].as_str(),
        "build-script-executed" => Some("a build script"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn artifacts_and_build_scripts_are_units() {
        let artifact = json!({ "reason": "compiler-artifact", "target": { "name": "tokio" } });
        assert_eq!(unit(&artifact), Some("tokio"));
        assert_eq!(
            unit(&json!({ "reason": "build-script-executed" })),
            Some("a build script")
        );
        assert_eq!(unit(&json!({ "reason": "build-finished", "success": true })), None);
    }

    #[test]
    fn line_has_the_total_where_cargo_tells_it() {
        let took = Duration::from_secs(75);
        assert_eq!(
            line(3, Units::Known(9), "tokio", took),
            "3 of 9 units built, 75 s, last tokio"
        );
        assert_eq!(line(3, Units::Unknown, "", took), "3 units built, 75 s");
    }
}
