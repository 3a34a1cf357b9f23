//! Cases of a test of the fault suite (`docs/reliability.md`): few in CI, all on request.
//!
//! `cargo xtask trials` reads the number of cases from the line `test-cases: PASSED of ALL` of a test's output. A test
//! in a crate that does not depend on this one prints that line itself; a test that prints none is one case.

use std::env;

use anyhow::{Error, Result, bail};

/// Number of cases to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Subset that CI has time for.
    Short,
    /// All cases, or more random ones: `cargo xtask trials --long`.
    Long,
}

/// Reads the requested length: long if `XENPLUG_FAULT_SUITE` is `long`.
pub fn length() -> Length {
    match env::var_os("XENPLUG_FAULT_SUITE") {
        Some(value) if value == "long" => Length::Long,
        _ => Length::Short,
    }
}

/// Number of failures that are reported in full.
const REPORTED: usize = 5;

/// Counter of the cases of one test. After a failed case the others still run.
#[derive(Debug, Default)]
pub struct Cases {
    passed: usize,
    failures: Vec<String>,
}

impl Cases {
    /// Counts a case; an error counts as failed.
    pub fn case(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.passed += 1,
            Err(error) => self.failures.push(describe(name, &error)),
        }
    }

    /// Returns true once `REPORTED` cases have failed, so that a test can stop early.
    pub fn is_lost(&self) -> bool {
        self.failures.len() >= REPORTED
    }

    /// Prints the number of cases that passed. Fails if a case failed, or if there were none.
    #[allow(clippy::print_stdout, reason = "`cargo xtask trials` reads it there")]
    pub fn end(self) -> Result<()> {
        let all = self.passed + self.failures.len();
        println!("test-cases: {} of {all}", self.passed);
        if all == 0 {
            bail!("the test had no cases");
        }
        if self.failures.is_empty() {
            return Ok(());
        }
        let reported = self.failures.iter().take(REPORTED).cloned().collect::<Vec<_>>();
        bail!(
            "{} of {all} cases failed:\n{}",
            self.failures.len(),
            reported.join("\n")
        )
    }
}

fn describe(name: &str, error: &Error) -> String {
    format!("--- {name}: {error:#}")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn failed_cases_are_named_in_the_error() {
        let mut cases = Cases::default();
        cases.case("the first", Ok(()));
        cases.case("the second", Err(anyhow!("cause").context("what")));
        let error = cases.end().expect_err("a case failed").to_string();
        assert_eq!(error, "1 of 2 cases failed:\n--- the second: what: cause");
    }

    #[test]
    fn test_without_cases_fails() {
        assert!(Cases::default().end().is_err());
    }
}
