//! Runs cases on both sides, and reports each difference that their table does not permit.

use std::{
    collections::BTreeSet,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

use anyhow::{Context, Result, ensure};

use super::{Case, Difference, Fixture, Lab, Who, case::matches};

/// Number of cases that run at once. They wait for processes and packets more than they compute.
const AT_ONCE: usize = 4;

/// Number of retries of a side when another program takes the loop device that the original script was about to use.
const RETRIES: usize = 20;

/// Results of a case on one side alone.
#[derive(Debug, Default)]
pub struct Report {
    /// Lines of the original alone.
    pub original: BTreeSet<String>,
    /// Lines of ours alone.
    pub ours: BTreeSet<String>,
    /// Errors and logs, for a reader.
    pub account: String,
}

impl Report {
    /// Lists the differences that the table does not list, and the listed ones that did not occur.
    fn objections(&self, listed: &[Difference]) -> String {
        let mut text = String::new();
        for (who, lines, patterns) in [
            (
                Who::Original,
                &self.original,
                listed.iter().flat_map(|one| one.original).collect::<Vec<_>>(),
            ),
            (Who::Ours, &self.ours, listed.iter().flat_map(|one| one.ours).collect()),
        ] {
            for line in lines {
                if !patterns.iter().any(|pattern| matches(pattern, line)) {
                    let _ = writeln!(text, "  only {who}: {line}");
                }
            }
            for pattern in patterns {
                if !lines.iter().any(|line| matches(pattern, line)) {
                    let _ = writeln!(text, "  listed, and not there: only {who}: {pattern}");
                }
            }
        }
        text
    }
}

/// Runs one case with the original and with ours, and returns the differences.
pub fn compare(lab: &Lab, case: &Case) -> Result<Report> {
    let (original, ours) = (side(lab, case, Who::Original)?, side(lab, case, Who::Ours)?);
    Ok(Report {
        original: original.0.difference(&ours.0).cloned().collect(),
        ours: ours.0.difference(&original.0).cloned().collect(),
        account: original.1 + &ours.1,
    })
}

fn side(lab: &Lab, case: &Case, who: Who) -> Result<(BTreeSet<String>, String)> {
    let mut tries = 0..RETRIES;
    loop {
        let mut fixture = Fixture::new(lab, who)?;
        let done = case
            .steps
            .iter()
            .try_for_each(|step| fixture.take(step).with_context(|| format!("{who}, at {step:?}")));
        let account = fixture.account();
        if fixture.lost_the_race() && tries.next().is_some() {
            continue;
        }
        done.with_context(|| account.clone())?;
        return Ok((fixture.observed()?, account));
    }
}

/// Runs a case, and describes how it deviates from its table.
fn failure(lab: &Lab, case: &Case) -> Option<String> {
    match compare(lab, case) {
        Ok(report) => {
            let objections = report.objections(case.differences);
            (!objections.is_empty()).then(|| format!("{objections}{}", report.account))
        }
        Err(error) => Some(format!("  {error:#}\n")),
    }
}

/// Runs all cases of a table, several at once. Fails with all deviations from the table.
pub fn compare_all(lab: &Lab, cases: &[Case]) -> Result<()> {
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    ensure!(names.len() == cases.len(), "two cases have the same name");
    // One table runs at a time: more cases at once would only make daemons slow to start.
    static TABLE: Mutex<()> = Mutex::new(());
    let _alone = TABLE.lock().unwrap_or_else(PoisonError::into_inner);
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    if let Some(failure) = failure(lab, case) {
                        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
                        failures.push((index, format!("{}:\n{failure}", case.name)));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    let texts: Vec<String> = failures.into_iter().map(|(_, text)| text).collect();
    ensure!(
        texts.is_empty(),
        "{} of {} cases deviate from their table\n{}",
        texts.len(),
        cases.len(),
        texts.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlisted_and_absent_differences_are_reported() {
        let report = Report {
            original: BTreeSet::from(["a 1".to_owned()]),
            ours: BTreeSet::from(["b 2".to_owned()]),
            account: String::new(),
        };
        let listed = |original, ours| Difference {
            original,
            ours,
            because: "",
        };
        assert_eq!(report.objections(&[listed(&["a *"], &["b *"])]), "");
        assert_eq!(report.objections(&[listed(&["a *"], &[])]), "  only ours: b 2\n");
        assert_eq!(
            report.objections(&[listed(&["a *"], &["b *"]), listed(&["c"], &[])]),
            "  listed, and not there: only the original: c\n"
        );
    }
}
