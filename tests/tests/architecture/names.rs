//! Names of tests, which appear in documents and in the output of every run.

use std::{collections::BTreeMap, fs};

use anyhow::{Result, ensure};

use crate::{root, source::find};

/// Maximum length of a test's name.
const LONGEST: usize = 60;

#[test]
fn test_names_have_at_most_sixty_characters() -> Result<()> {
    let mut longer: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut files = Vec::new();
    for folder in ["host", "plugins", "tests", "xtask", "fuzz"] {
        find(&root().join(folder), &mut files)?;
    }
    let mut all = 0;
    for file in files {
        let path = file.strip_prefix(root())?.display().to_string();
        let text = fs::read_to_string(&file)?;
        for name in test_names(&text) {
            all += 1;
            if name.len() > LONGEST {
                let package = path.split('/').take(2).collect::<Vec<_>>().join("/");
                longer.entry(package).or_default().push(name.to_owned());
            }
        }
    }
    ensure!(all > 500, "only {all} tests were found");
    ensure!(longer.is_empty(), "names over {LONGEST} characters: {longer:#?}");
    Ok(())
}

/// Returns the names of the functions that carry a test attribute.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let (_, rest) = line.split_once("fn ").filter(|_| is_test)?;
        is_test = false;
        rest.split_once('(').map(|(name, _)| name)
    })
}
