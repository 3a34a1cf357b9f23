//! Results and times of the test programs.

use std::{fs, process::ExitStatus, time::Duration};

use anyhow::{Context, Result, bail};

use crate::terminal;

/// Number of the slowest programs that are listed.
const LISTED: usize = 15;

/// Run of a test program.
#[derive(Debug)]
pub(super) struct Run {
    name: String,
    passed: u64,
    failed: u64,
    succeeded: bool,
    took: Duration,
    processor: Duration,
}

impl Run {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            passed: 0,
            failed: 0,
            succeeded: false,
            took: Duration::ZERO,
            processor: Duration::ZERO,
        }
    }

    /// Reads a line of output, and counts the tests of `test result: ok. 3 passed; 0 failed; ...`.
    pub(super) fn read(&mut self, line: &str) {
        let Some((_, counts)) = line.split_once("test result: ") else {
            return;
        };
        let count = |word: &str| {
            let before = counts.split(word).next()?.trim_end();
            before.rsplit(' ').next()?.parse::<u64>().ok()
        };
        self.passed += count("passed").unwrap_or(0);
        self.failed += count("failed").unwrap_or(0);
    }

    pub(super) fn finish(&mut self, status: ExitStatus, took: Duration, processor: Duration) {
        self.succeeded = status.success();
        self.took = took;
        self.processor = processor;
    }
}

/// Runs of all test programs.
#[derive(Default)]
pub(super) struct Account(Vec<Run>);

impl Account {
    pub(super) fn add(&mut self, run: Run) {
        self.0.push(run);
    }

    /// Shows the slowest programs, those that failed, and a closing line.
    pub(super) fn show(&self, took: Duration) {
        let mut slowest: Vec<&Run> = self.0.iter().collect();
        slowest.sort_by_key(|run| std::cmp::Reverse(run.took));
        terminal::step("The slowest test programs (wall time, processor time)");
        for run in slowest.into_iter().take(LISTED) {
            terminal::note(&format!(
                "{:>6.0} s {:>6.0} s  {}",
                run.took.as_secs_f64(),
                run.processor.as_secs_f64(),
                run.name
            ));
        }
        for run in self.0.iter().filter(|run| !run.succeeded) {
            terminal::warning(&format!("FAILED: {}, {} tests", run.name, run.failed));
        }
        terminal::step(&self.summary(took));
    }

    /// Returns the closing line.
    fn summary(&self, took: Duration) -> String {
        let sum = |of: fn(&Run) -> u64| self.0.iter().map(of).sum::<u64>();
        let word = if self.succeeded() { "Passed" } else { "FAILED" };
        format!(
            "{word}: {} tests passed and {} failed, in {} programs and {} min",
            sum(|run| run.passed),
            sum(|run| run.failed),
            self.0.len(),
            took.as_secs().div_ceil(60)
        )
    }

    fn succeeded(&self) -> bool {
        self.0.iter().all(|run| run.succeeded)
    }

    /// Fails if a test program failed.
    pub(super) fn result(&self) -> Result<()> {
        if !self.succeeded() {
            bail!("tests failed");
        }
        Ok(())
    }
}

/// Returns the processor time of all ended children (`cutime` and `cstime` in proc(5), in ticks of 10 ms).
pub(super) fn processor_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(13).take(2);
    let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn counts_are_read_from_result_lines() {
        let mut run = Run::new("one".to_owned());
        run.read("test it ... ok");
        run.read("test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((run.passed, run.failed), (12, 3));
    }

    #[test]
    fn one_failed_program_fails_the_suite() {
        let mut account = Account::default();
        for code in [0, 1 << 8] {
            let mut run = Run::new("one".to_owned());
            run.read("test result: ok. 2 passed; 0 failed;");
            run.finish(ExitStatus::from_raw(code), Duration::ZERO, Duration::ZERO);
            account.add(run);
        }
        assert!(account.result().is_err());
        assert_eq!(
            account.summary(Duration::from_secs(61)),
            "FAILED: 4 tests passed and 0 failed, in 2 programs and 2 min"
        );
    }
}
