//! The examples' configurations, with every table that they have in comments, however they are edited.

use std::fs;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

/// Values and pieces of them that somebody may write, or slip in.
const ODD: &[&str] = &[
    "",
    "0",
    "-1",
    "4294967296",
    "1e400",
    "nan",
    "true",
    "\"\"",
    "\"/\"",
    "\"..\"",
    "\"*\"",
    "\"/a/*/b\"",
    "\"\\u0000\"",
    "\"0s\"",
    "\"1000000000000y\"",
    "\"18446744073709551616TiB\"",
    "\"10.0.0.0/33\"",
    "\"::/0\"",
    "[]",
    "[[]]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    "=",
    "\"",
    "\"\"\"",
    "'",
    "\n",
    "\r",
    "\u{0}",
    "\u{85}",
    "\u{2028}",
    "ä",
    "#",
    ".",
    "plugin",
    "1979-05-27T07:32:00Z",
];

fn example(name: &str) -> String {
    fs::read_to_string(examples().join(name)).expect(name)
}

/// The tables that an example has in comments, each as a part of the file: from `# [plugin.` to the next empty line.
fn in_comments(text: &str) -> Vec<String> {
    let parts = text
        .split("\n\n")
        .filter_map(|part| Some(&part[part.find("# [plugin.")?..]));
    let bare = |line: &str| line.strip_prefix("# ").unwrap_or(line).to_owned() + "\n";
    parts.map(|part| part.lines().map(bare).collect()).collect()
}

#[test]
fn commented_tables_of_the_examples_are_valid() {
    for (name, tables) in [("driver-domain.toml", 2), ("dom0.toml", 6)] {
        let text = example(name);
        let found = in_comments(&text);
        assert!(found.len() >= tables, "{name}: {}", found.len());
        for table in found {
            let config = parse(&format!("{text}\n{table}")).unwrap_or_else(|error| panic!("{name}: {error}\n{table}"));
            assert_eq!(config.plugins.len(), 3, "{name}: {table}");
        }
    }
}

/// Something that is done to a text.
#[derive(Clone, Debug)]
enum Edit {
    Drop(Index),
    Copy(Index, Index),
    Swap(Index, Index),
    Replace(Index, &'static str),
}

fn edit() -> impl Strategy<Value = Edit> {
    let index = any::<Index>;
    prop_oneof![
        index().prop_map(Edit::Drop),
        (index(), index()).prop_map(|(from, to)| Edit::Copy(from, to)),
        (index(), index()).prop_map(|(one, other)| Edit::Swap(one, other)),
        (index(), proptest::sample::select(ODD)).prop_map(|(at, odd)| Edit::Replace(at, odd)),
    ]
}

/// Words and values, and what stands between them.
fn pieces(text: &str) -> Vec<&str> {
    text.split_inclusive([' ', '\n', '=', ',', '[', ']', '{', '}'])
        .collect()
}

fn edited(text: &str, edits: &[Edit]) -> String {
    let mut pieces = pieces(text);
    for edit in edits {
        if pieces.is_empty() {
            break;
        }
        let length = pieces.len();
        let at = |index: &Index| index.index(length);
        match edit {
            Edit::Drop(index) => drop(pieces.remove(at(index))),
            Edit::Copy(from, to) => pieces.insert(at(to), pieces[at(from)]),
            Edit::Swap(one, other) => pieces.swap(at(one), at(other)),
            Edit::Replace(index, odd) => pieces[at(index)] = odd,
        }
    }
    pieces.concat()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edited_example_is_valid_or_refused_in_one_line(
        dom0: bool,
        table: Index,
        edits in vec(edit(), 0..6),
    ) {
        let text = example(if dom0 { "dom0.toml" } else { "driver-domain.toml" });
        let tables = in_comments(&text);
        // What is a comment stays one, whatever is done to it.
        let bare: String = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.to_owned() + "\n").collect();
        let text = edited(&(bare + &tables[table.index(tables.len())]), &edits);
        match parse(&text) {
            Ok(config) => {
                prop_assert!(!config.plugins.is_empty());
                for Plugin { spec, kinds, scripts, .. } in &config.plugins {
                    prop_assert!(!kinds.is_empty() && scripts.iter().all(|name| !name.is_empty() && !name.contains('/')));
                    prop_assert!((64 << 10..=Limits::MEMORY_MAX).contains(&spec.limits.memory));
                    prop_assert!(spec.limits.deadline <= Duration::from_secs(600));
                }
            }
            Err(error) => {
                let said = error.to_string();
                prop_assert!(said.starts_with("x.toml:") && !said.contains('\n'), "{said:?}");
                if let ConfigError::Line { line, .. } = error {
                    prop_assert!((1..=text.matches('\n').count() + 1).contains(&line), "{said}");
                }
            }
        }
    }
}
