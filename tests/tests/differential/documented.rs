//! Checks `docs/scripts.md`: its table has every script that Xen ships and every handler that serves one, and its list
//! of differences is that of the cases.

use std::{
    collections::BTreeSet,
    env,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use xenplug_tests::{differential::Case, harness::DebianRoot};

use super::TABLES;

/// Environment variable that makes the test write the list of differences instead of comparing it.
const WRITE: &str = "XENPLUG_WRITE_DOCS";

const HEADING: &str = "\n## Differences\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn document() -> Result<String> {
    fs::read_to_string(root().join("docs/scripts.md")).context("docs/scripts.md")
}

/// Returns the texts between back quotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the script, the plugin that serves it, and the tests, of each row.
fn rows(document: &str) -> Vec<(&str, &str, Vec<&str>)> {
    document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            Some((*quoted(cells.get(1)?).first()?, *cells.get(3)?, quoted(cells.get(4)?)))
        })
        .collect()
}

/// Appends the text of all files below a directory that have this extension.
fn texts(folder: &Path, ending: &str, all: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            texts(&path, ending, all)?;
        } else if path.extension().is_some_and(|extension| extension == ending) {
            all.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn documentation_lists_every_xen_script_and_plugin() -> Result<()> {
    let document = document()?;
    let rows = rows(&document);
    let documented: Vec<&str> = rows.iter().map(|row| row.0).collect();
    assert_eq!(documented, DebianRoot::find()?.script_names()?);

    let mut code = String::new();
    texts(&root().join("plugins"), "rs", &mut code)?;
    let served: BTreeSet<&str> = code
        .split(".script(\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    let said: BTreeSet<&str> = rows
        .iter()
        .filter(|(_, how, _)| !how.starts_with("stays") && !how.starts_with("the shim itself"))
        .map(|row| row.0)
        .collect();
    let shipped: BTreeSet<&str> = served.into_iter().filter(|name| documented.contains(name)).collect();
    assert_eq!(said, shipped, "by docs/scripts.md, and by the handlers");

    let mut tests = String::new();
    texts(&root().join("tests/tests"), "rs", &mut tests)?;
    for (script, how, named) in &rows {
        for handler in quoted(how) {
            ensure!(
                root().join("plugins").join(handler).is_dir(),
                "{script}: there is no handler {handler}"
            );
        }
        ensure!(how.starts_with("stays") || !named.is_empty(), "{script} names no test");
        for test in named {
            ensure!(
                tests.contains(&format!("fn {test}()")),
                "{script}: there is no test {test}"
            );
        }
    }
    Ok(())
}

#[test]
fn newest_xen_scripts_equal_the_compared_except_block_tap() -> Result<()> {
    let root = DebianRoot::find()?;
    let (older, newer) = (root.scripts_of(12)?, root.scripts_of(13)?);
    // Paths, which contain the version, and the start of xenstored.
    let others = ["hotplugpath.sh", "launch-xenstore"];
    let mut changed = Vec::new();
    for name in root.script_names()? {
        let (old, new) = (fs::read(older.join(&name))?, fs::read(newer.join(&name)));
        let new = new.with_context(|| format!("{name} is no more"))?;
        if old != new && !others.contains(&&*name) {
            changed.push(name);
        }
    }
    assert_eq!(changed, ["block-tap"]);
    assert_eq!(
        fs::read_dir(newer)?.count(),
        root.script_names()?.len(),
        "there are more"
    );
    Ok(())
}

#[test]
fn documented_differences_match_the_cases() -> Result<()> {
    let document = document()?;
    let (head, written) = document.split_once(HEADING).context("no heading")?;
    let made = TABLES
        .iter()
        .fold(String::new(), |text, (script, cases)| text + &section(script, cases));
    if env::var_os(WRITE).is_some() {
        fs::write(root().join("docs/scripts.md"), format!("{head}{HEADING}{made}"))?;
    } else {
        assert_eq!(written, made, "{WRITE}=1 writes it");
    }
    Ok(())
}

/// Formats the differences of one script: each reason, with its cases.
fn section(script: &str, cases: &[Case]) -> String {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for case in cases {
        for difference in case.differences {
            match reasons.iter_mut().find(|(reason, _)| *reason == difference.because) {
                Some((_, names)) if names.last() == Some(&case.name) => {}
                Some((_, names)) => names.push(case.name),
                None => reasons.push((difference.because, vec![case.name])),
            }
        }
    }
    let same = cases.iter().filter(|case| case.differences.is_empty()).count();
    let mut text = format!(
        "\n### {script}\n\n{} cases, {same} of them without any difference.\n\n",
        cases.len()
    );
    for (reason, names) in reasons {
        let more = names.len().saturating_sub(3);
        let names = names.iter().take(3).copied().collect::<Vec<_>>().join("; ");
        let _ = match more {
            0 => writeln!(text, "- {reason} ({names})"),
            more => writeln!(text, "- {reason} ({names}; {more} more)"),
        };
    }
    text
}
