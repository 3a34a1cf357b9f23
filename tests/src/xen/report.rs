//! What came out, as a table: scenario by scenario, theirs beside ours.

use std::fmt::Write as _;

use super::{BackendIn, Outcome, Ran, Scenario, Side};

/// The table: a row for each scenario and place, below it a row for each step and each count; then what was found and what
/// failed.
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

/// The names, each once, in the order in which they come first.
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

/// The time of a step; the median and the number, of one that was repeated.
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
    let said = match &ran.outcome {
        Outcome::Passed => None,
        Outcome::Failed(why) => Some(format!("failed: {why}")),
        Outcome::Absent(why) => Some(format!("does not apply: {why}")),
    };
    if said.is_none() && ran.found.is_empty() {
        return;
    }
    let _ = writeln!(remarks, "\n{heading}");
    for (name, text) in &ran.found {
        let _ = writeln!(remarks, "    {name}: {text}");
    }
    if let Some(said) = said {
        let _ = writeln!(remarks, "    {said}");
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
