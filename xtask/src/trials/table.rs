//! How the trials ended, as a table.
#![allow(clippy::print_stdout, reason = "the table is what was asked for")]

use std::{fmt, time::Duration};

use serde_json::{Value, json};

/// What starts the line by which a test tells how many cases it had: `trial-cases: PASSED of ALL`, or one number.
const CASES: &str = "trial-cases: ";

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    cases: u64,
    passed: u64,
    succeeded: bool,
    took: Duration,
}

impl Outcome {
    /// From what the test said. One that says nothing of cases is one.
    pub(super) fn of(said: &str, succeeded: bool, took: Duration) -> Self {
        let told = said.lines().filter_map(|line| line.split_once(CASES));
        let numbers = told.filter_map(|(_, numbers)| {
            let (passed, all) = numbers.split_once(" of ").unwrap_or((numbers, numbers));
            Some((passed.trim().parse::<u64>().ok()?, all.trim().parse::<u64>().ok()?))
        });
        let (passed, cases) = numbers
            .reduce(|one, other| (one.0 + other.0, one.1 + other.1))
            .unwrap_or((u64::from(succeeded), 1));
        Self {
            cases,
            passed,
            succeeded,
            took,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.succeeded { "passed" } else { "FAILED" };
        write!(
            f,
            "{word}: {} of {} cases in {:.1} s",
            self.passed,
            self.cases,
            self.took.as_secs_f64()
        )
    }
}

/// One trial.
pub(super) struct Row {
    trial: String,
    tests: Vec<(String, Outcome)>,
}

impl Row {
    pub(super) fn of(trial: &str) -> Self {
        Self {
            trial: trial.to_owned(),
            tests: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, test: &str, outcome: Outcome) {
        self.tests.push((test.to_owned(), outcome));
    }

    /// Whether all its tests did.
    pub(super) fn passed(&self) -> bool {
        self.tests.iter().all(|(_, outcome)| outcome.succeeded)
    }

    fn sum(&self) -> Outcome {
        let mut sum = Outcome {
            cases: 0,
            passed: 0,
            succeeded: self.passed(),
            took: Duration::ZERO,
        };
        for (_, outcome) in &self.tests {
            sum.cases += outcome.cases;
            sum.passed += outcome.passed;
            sum.took += outcome.took;
        }
        sum
    }

    fn json(&self) -> Value {
        let sum = self.sum();
        let tests = self.tests.iter().map(|(name, outcome)| {
            json!({ "name": name, "cases": outcome.cases, "passed": outcome.passed, "succeeded": outcome.succeeded,
                    "seconds": outcome.took.as_secs_f64() })
        });
        json!({ "trial": self.trial, "tests": tests.collect::<Vec<_>>(), "cases": sum.cases, "passed": sum.passed,
                "succeeded": sum.succeeded, "seconds": sum.took.as_secs_f64() })
    }
}

/// Writes it to standard output.
pub(super) fn show(rows: &[Row], as_json: bool) {
    if as_json {
        println!("{:#}", Value::from(rows.iter().map(Row::json).collect::<Vec<_>>()));
        return;
    }
    println!("| trial | tests | cases | passed | time | |");
    println!("| --- | ---: | ---: | ---: | ---: | --- |");
    for row in rows {
        let Outcome {
            cases,
            passed,
            succeeded,
            took,
        } = row.sum();
        let word = if succeeded { "passed" } else { "FAILED" };
        println!(
            "| {} | {} | {cases} | {passed} | {:.1} s | {word} |",
            row.trial,
            row.tests.len(),
            took.as_secs_f64()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_one_case_unless_it_says_otherwise() {
        let of = |said, succeeded| {
            let outcome = Outcome::of(said, succeeded, Duration::ZERO);
            (outcome.passed, outcome.cases)
        };
        assert_eq!(of("test it ... ok\n", true), (1, 1));
        assert_eq!(of("", false), (0, 1));
        assert_eq!(of("test it ... trial-cases: 1000\nok\n", true), (1000, 1000));
        assert_eq!(of("trial-cases: 7 of 9\ntrial-cases: 1 of 1\n", false), (8, 10));
    }
}
