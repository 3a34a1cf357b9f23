//! Table of the fault suite's results.
#![allow(clippy::print_stdout, reason = "the table is the task's output")]

use std::{fmt, iter::Sum, time::Duration};

use serde_json::{Value, json};

/// Start of the line with a test's number of cases: `test-cases: PASSED of ALL`, or one number.
const CASES: &str = "test-cases: ";

/// Result of one test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    cases: u64,
    passed: u64,
    succeeded: bool,
    took: Duration,
}

impl Outcome {
    /// Reads the cases from a test's output. A test that prints none is one case.
    pub(super) fn of(output: &str, succeeded: bool, took: Duration) -> Self {
        let lines = output.lines().filter_map(|line| line.split_once(CASES));
        let numbers = lines.filter_map(|(_, numbers)| {
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

impl Sum for Outcome {
    fn sum<I: Iterator<Item = Self>>(outcomes: I) -> Self {
        let none = Self {
            cases: 0,
            passed: 0,
            succeeded: true,
            took: Duration::ZERO,
        };
        outcomes.fold(none, |sum, one| Self {
            cases: sum.cases + one.cases,
            passed: sum.passed + one.passed,
            succeeded: sum.succeeded && one.succeeded,
            took: sum.took + one.took,
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let result = if self.succeeded { "passed" } else { "FAILED" };
        write!(
            f,
            "{result}: {} of {} cases in {:.1} s",
            self.passed,
            self.cases,
            self.took.as_secs_f64()
        )
    }
}

/// Row of the fault suite.
pub(super) struct Row {
    id: String,
    tests: Vec<(String, Outcome)>,
}

impl Row {
    pub(super) fn of(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            tests: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, test: &str, outcome: Outcome) {
        self.tests.push((test.to_owned(), outcome));
    }

    /// Returns true if all its tests passed.
    pub(super) fn passed(&self) -> bool {
        self.tests.iter().all(|(_, outcome)| outcome.succeeded)
    }

    fn sum(&self) -> Outcome {
        self.tests.iter().map(|(_, outcome)| *outcome).sum()
    }

    fn json(&self) -> Value {
        let sum = self.sum();
        let tests = self.tests.iter().map(|(name, outcome)| {
            json!({ "name": name, "cases": outcome.cases, "passed": outcome.passed, "succeeded": outcome.succeeded,
                    "seconds": outcome.took.as_secs_f64() })
        });
        json!({ "row": self.id, "tests": tests.collect::<Vec<_>>(), "cases": sum.cases, "passed": sum.passed,
                "succeeded": sum.succeeded, "seconds": sum.took.as_secs_f64() })
    }
}

/// Prints the table. A test that is in several rows counts in each, and once in `tests`.
pub(super) fn show(rows: &[Row], tests: Vec<Outcome>, as_json: bool) {
    if as_json {
        println!("{:#}", Value::from(rows.iter().map(Row::json).collect::<Vec<_>>()));
        return;
    }
    println!("| row | tests | cases | passed | time | |");
    println!("| --- | ---: | ---: | ---: | ---: | --- |");
    for row in rows {
        line(&row.id, row.tests.len(), row.sum());
    }
    line("all", tests.len(), tests.into_iter().sum());
}

fn line(name: &str, tests: usize, sum: Outcome) {
    let Outcome {
        cases, passed, took, ..
    } = sum;
    let result = if sum.succeeded { "passed" } else { "FAILED" };
    let seconds = took.as_secs_f64();
    println!("| {name} | {tests} | {cases} | {passed} | {seconds:.1} s | {result} |");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_counts_as_one_case_unless_it_says_otherwise() {
        let of = |output, succeeded| {
            let outcome = Outcome::of(output, succeeded, Duration::ZERO);
            (outcome.passed, outcome.cases)
        };
        assert_eq!(of("test it ... ok\n", true), (1, 1));
        assert_eq!(of("", false), (0, 1));
        assert_eq!(of("test it ... test-cases: 1000\nok\n", true), (1000, 1000));
        assert_eq!(of("test-cases: 7 of 9\ntest-cases: 1 of 1\n", false), (8, 10));
    }
}
