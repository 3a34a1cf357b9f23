//! The documents name files, headings and tests that exist, and ARCHITECTURE.md is short.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{quoted, read, root, source::find};

/// Maximum number of words of ARCHITECTURE.md, as `wc -w` counts them.
const MOST_WORDS: usize = 1500;

/// Directories at the top of the repository. A quoted word that begins with one of them is a path.
const FOLDERS: [&str; 9] = [
    "host", "plugins", "tests", "xtask", "wit", "docs", "examples", "fuzz", ".ci",
];

#[test]
fn architecture_md_has_at_most_1500_words() -> Result<()> {
    let words = read("ARCHITECTURE.md")?.split_whitespace().count();
    ensure!(words <= MOST_WORDS, "ARCHITECTURE.md has {words} words");
    Ok(())
}

#[test]
fn quoted_paths_in_documents_exist() -> Result<()> {
    let mut count = 0;
    for document in documents()? {
        // These documents also name files that are gone.
        if document == "CHANGELOG.md" || document.starts_with("docs/decisions/") {
            continue;
        }
        for word in quoted(&prose(&read(&document)?)).filter(|word| is_path(word)) {
            for path in alternatives(word) {
                count += 1;
                ensure!(exists(&path), "{document}: there is no {path}");
            }
        }
    }
    ensure!(count > 50, "only {count} paths were found");
    Ok(())
}

#[test]
fn links_in_documents_lead_to_files_and_headings() -> Result<()> {
    let mut count = 0;
    for document in documents()? {
        for link in links(&read(&document)?) {
            let (path, heading) = link.split_once('#').unwrap_or((&link, ""));
            let from = Path::new(&document);
            let target = if path.is_empty() {
                from.to_owned()
            } else {
                normalized(&from.with_file_name(path))
            };
            count += 1;
            ensure!(root().join(&target).exists(), "{document}: {link} leads nowhere");
            let headings = || -> Result<BTreeSet<String>> { Ok(headings(&fs::read_to_string(root().join(&target))?)) };
            ensure!(
                heading.is_empty() || headings()?.contains(heading),
                "{document}: there is no heading for {link}"
            );
        }
    }
    ensure!(count > 50, "only {count} links were found");
    Ok(())
}

#[test]
fn invariants_md_names_existing_tests() -> Result<()> {
    let text = read("docs/invariants.md")?;
    let mut named = BTreeSet::new();
    for row in text.lines().filter(|line| line.starts_with("| ")).map(cells) {
        let (Some(rule), Some(tests)) = (row.first(), row.last()) else {
            continue;
        };
        if *rule == "invariant" || rule.starts_with("--") {
            continue;
        }
        ensure!(quoted(tests).next().is_some(), "no test keeps: {rule}");
        named.extend(quoted(tests));
    }
    ensure!(named.len() > 50, "docs/invariants.md names {named:?}");
    are_tests(&named)
}

#[test]
fn reliability_md_names_existing_tests() -> Result<()> {
    let text = read("docs/reliability.md")?;
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| T")).collect();
    ensure!(rows.len() == 28, "docs/reliability.md has {} rows", rows.len());
    let mut named = BTreeSet::new();
    for row in rows {
        let tests = *cells(row).last().context("no columns")?;
        ensure!(quoted(tests).next().is_some(), "no test: {row}");
        named.extend(quoted(tests));
    }
    are_tests(&named)
}

#[test]
fn decisions_are_all_in_their_index() -> Result<()> {
    let index = read("docs/decisions/README.md")?;
    for document in documents()? {
        let record = document.strip_prefix("docs/decisions/").unwrap_or("README.md");
        ensure!(
            record == "README.md" || index.contains(&format!("]({record})")),
            "docs/decisions/README.md lacks {record}"
        );
    }
    Ok(())
}

#[test]
fn slugs_and_alternatives_are_those_of_a_forge() {
    let text = "# The race\n## `qdisk`, and tapdisk\n```sh\n# no\n```\n";
    assert!(headings(text).into_iter().eq(["qdisk-and-tapdisk", "the-race"]));
    assert_eq!(alternatives("host/{a,b}.rs"), ["host/a.rs", "host/b.rs"]);
    assert!(is_path("wit/types.wit") && !is_path("tests") && !is_path("host/NAME") && !is_path("/usr/x"));
    assert_eq!(links("[a](b.md#c) ![d](e.svg) [f](https://g)"), ["b.md#c", "e.svg"]);
}

/// Lists the documents of the repository.
fn documents() -> Result<Vec<String>> {
    let mut all = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        for entry in fs::read_dir(root().join(folder)).with_context(|| folder.to_owned())? {
            let path = Path::new(folder).join(entry?.file_name());
            if path.extension().is_some_and(|extension| extension == "md") {
                all.push(path.display().to_string());
            }
        }
    }
    ensure!(all.len() > 10, "the documents are only {all:?}");
    Ok(all)
}

/// Returns a document without its code blocks, whose fences would be taken for quotes.
fn prose(text: &str) -> String {
    let mut lines = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line);
        }
    }
    lines.join("\n")
}

fn is_path(word: &str) -> bool {
    let placeholder = |part: &str| part.len() > 1 && part.chars().all(|letter| letter.is_ascii_uppercase());
    let mut parts = word.split('/');
    parts.next().is_some_and(|first| FOLDERS.contains(&first))
        && word.contains('/')
        && !word.contains([' ', '<'])
        && !parts.any(placeholder)
}

/// Expands the braces of a path.
fn alternatives(word: &str) -> Vec<String> {
    let Some((head, (inner, tail))) = word
        .split_once('{')
        .and_then(|(head, rest)| Some((head, rest.split_once('}')?)))
    else {
        return vec![word.to_owned()];
    };
    inner.split(',').map(|part| format!("{head}{part}{tail}")).collect()
}

/// Tells whether a path exists. A pattern only has to be in a directory that exists.
fn exists(path: &str) -> bool {
    let path = Path::new(path);
    let is_pattern = path.to_string_lossy().contains('*');
    let file = if is_pattern {
        path.parent().unwrap_or(path)
    } else {
        path
    };
    root().join(file).exists()
}

/// Returns the targets of links and pictures within the repository.
fn links(text: &str) -> Vec<String> {
    prose(text)
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.to_owned())
        .filter(|target| !target.contains("://"))
        .collect()
}

/// Returns the headings of a document as the anchors that forges give them.
fn headings(text: &str) -> BTreeSet<String> {
    prose(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let allowed = title
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            allowed.collect::<String>().replace(' ', "-")
        })
        .collect()
}

fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split(" | ").map(str::trim).collect()
}

fn normalized(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}

/// Fails with the first of these names that is not a test's.
fn are_tests(named: &BTreeSet<&str>) -> Result<()> {
    let mut files = Vec::new();
    for folder in ["host", "plugins", "tests"] {
        find(&root().join(folder), &mut files)?;
    }
    let code = files
        .iter()
        .map(fs::read_to_string)
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    for name in named {
        ensure!(code.contains(&format!("fn {name}()")), "there is no test {name}");
    }
    Ok(())
}
