//! A trial of `docs/reliability.md`: a test of many cases, brief in CI and at length when asked.
//!
//! `cargo xtask trials` reads the number of cases from what a test prints, `trial-cases: PASSED of ALL`, so a test in a
//! crate that does without this one prints that line itself; one that prints none is one case.

use std::env;

use anyhow::{Error, Result, bail};

/// How much of a trial to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// What fits into CI.
    Short,
    /// All, or far more: `cargo xtask trials --long`.
    Long,
}

/// How much was asked for: `XENPLUG_TRIALS=long`, or nothing.
pub fn length() -> Length {
    match env::var_os("XENPLUG_TRIALS") {
        Some(value) if value == "long" => Length::Long,
        _ => Length::Short,
    }
}

/// How many failures of a trial are told in full.
const TOLD: usize = 5;

/// The cases of one test. A case that fails does not keep the others from being tried.
#[derive(Debug, Default)]
pub struct Trial {
    passed: usize,
    failures: Vec<String>,
}

impl Trial {
    /// Counts a case, which failed if it is an error.
    pub fn case(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.failures.push(told(name, &error)),
        }
    }

    /// Whether so many cases have failed that more would tell nothing new.
    pub fn is_lost(&self) -> bool {
        self.failures.len() >= TOLD
    }

    /// Tells how many cases there were. An error has what failed; no cases at all are one, too.
    #[allow(clippy::print_stdout, reason = "`cargo xtask trials` reads it there")]
    pub fn end(self) -> Result<()> {
        let all = self.passed + self.failures.len();
        println!("trial-cases: {} of {all}", self.passed);
        if all == 0 {
            bail!("the trial had no cases");
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        let told = self.failures.iter().take(TOLD).cloned().collect::<Vec<_>>();
        bail!("{} of {all} cases failed:\n{}", self.failures.len(), told.join("\n"))
    }
}

fn told(name: &str, error: &Error) -> String {
    format!("--- {name}: {error:#}")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn failed_cases_are_named_in_the_error() {
        let mut trial = Trial::default();
        trial.case("the first", Ok(()));
        trial.case("the second", Err(anyhow!("cause").context("what")));
        let error = trial.end().expect_err("a case failed").to_string();
        assert_eq!(error, "1 of 2 cases failed:\n--- the second: what: cause");
    }

    #[test]
    fn test_without_cases_fails() {
        assert!(Trial::default().end().is_err());
    }
}
