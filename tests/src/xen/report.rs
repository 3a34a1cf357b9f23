//! Table of results: scenario by scenario, theirs beside ours.

use std::fmt::Write as _;

use super::{BackendIn, Outcome, Ran, Scenario, Side};

/// Returns the table: a row for each scenario and place, with rows for its steps and counts below; then the
/// observations and the failures.
pub fn table(scenarios: &[Scenario], report: &[Ran]) -> String {
    let of = |scenario: &str, place, side| {
        report
            .iter()
            .find(|ran| ran.scenario == scenario && ran.place == place && ran.side == side)
    };
    let mut rows = Vec::new();
    let mut remarks = String::new();
    for place in BackendIn::ALL {
        for scenario in scenarios {
            let sides = Side::ALL.map(|side| of(&scenario.name, place, side));
            if sides.iter().all(Option::is_none) {
                continue;
            }
            rows.push([
                format!("{}: {}", place.name(), scenario.name),
                cell(sides[0]),
                cell(sides[1]),
            ]);
            for step in names(sides.iter().flatten().flat_map(|ran| &ran.steps)) {
                let time = |ran: Option<&Ran>| ran.map_or_else(String::new, |ran| step_times(ran, step));
                rows.push([format!("    {step}"), time(sides[0]), time(sides[1])]);
            }
            for count in names(sides.iter().flatten().flat_map(|ran| &ran.counts)) {
                let text = |ran: Option<&Ran>| {
                    let counted = ran.and_then(|ran| ran.counts.iter().find(|(name, _)| name == count));
                    counted.map_or_else(String::new, |(_, text)| text.clone())
                };
                rows.push([format!("    {count}"), text(sides[0]), text(sides[1])]);
            }
            for ran in sides.into_iter().flatten() {
                remark(&mut remarks, ran);
            }
        }
    }
    let head = [
        "scenario".to_owned(),
        Side::Theirs.name().to_owned(),
        Side::Ours.name().to_owned(),
    ];
    format!("{}{remarks}", lines(&head, &rows))
}

/// Returns each name once, in the order of the first occurrences.
fn names<'a, T: 'a>(named: impl Iterator<Item = &'a (String, T)>) -> Vec<&'a str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in named {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names
}

fn cell(ran: Option<&Ran>) -> String {
    match ran {
        None => "not run".to_owned(),
        Some(ran) => match ran.outcome {
            Outcome::Passed => format!("passed, {:.1} s", ran.seconds),
            Outcome::Failed(_) => format!("FAILED, {:.1} s", ran.seconds),
            Outcome::Absent(_) => "-".to_owned(),
        },
    }
}

/// Returns the time of a step, or the median and number of a repeated step.
fn step_times(ran: &Ran, step: &str) -> String {
    let mut times: Vec<f64> = ran
        .steps
        .iter()
        .filter(|(name, _)| name == step)
        .map(|(_, time)| *time)
        .collect();
    times.sort_by(f64::total_cmp);
    match times.as_slice() {
        [] => String::new(),
        [one] => format!("{one:.2} s"),
        many => format!("{:.2} s (median of {})", many[many.len() / 2], many.len()),
    }
}

fn remark(remarks: &mut String, ran: &Ran) {
    let heading = format!("{}, {}, {}", ran.place.name(), ran.scenario, ran.side.name());
    let result = match &ran.outcome {
        Outcome::Passed => None,
        Outcome::Failed(why) => Some(format!("failed: {why}")),
        Outcome::Absent(why) => Some(format!("does not apply: {why}")),
    };
    if result.is_none() && ran.found.is_empty() {
        return;
    }
    let _ = writeln!(remarks, "\n{heading}");
    for (name, text) in &ran.found {
        let _ = writeln!(remarks, "    {name}: {text}");
    }
    if let Some(result) = result {
        let _ = writeln!(remarks, "    {result}");
    }
}

fn lines(head: &[String; 3], rows: &[[String; 3]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths = [width(0), width(1), width(2)];
    let mut text = String::new();
    let rule = widths.map(|width| "-".repeat(width));
    for row in [head, &rule].into_iter().chain(rows) {
        let _ = writeln!(
            text,
            "| {:<a$} | {:<b$} | {:<c$} |",
            row[0],
            row[1],
            row[2],
            a = widths[0],
            b = widths[1],
            c = widths[2]
        );
    }
    text
}
