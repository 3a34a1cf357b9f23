//! Sources as words, searched for what a crate or module must not contain.

use std::{
    collections::BTreeSet,
    fs,
    iter::Peekable,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use proc_macro2::{Delimiter, TokenStream, TokenTree, token_stream};

use crate::root;

/// A source file as words: identifiers, literals and signs, without comments and without code for unit tests.
pub(crate) struct Source {
    /// Path relative to the workspace.
    pub(crate) path: String,
    pub(crate) words: Vec<String>,
}

impl Source {
    /// Reads the words of a text.
    pub(crate) fn words_of(text: &str) -> Result<Vec<String>> {
        let tokens = text.parse::<TokenStream>();
        let tokens = tokens.map_err(|error| anyhow::anyhow!("is not Rust: {error}"))?;
        let mut words = Vec::new();
        flatten(tokens, &mut words);
        Ok(words)
    }

    /// Counts the occurrences of this sequence of words.
    pub(crate) fn count(&self, row: &[&str]) -> usize {
        self.words
            .windows(row.len())
            .filter(|words| words.iter().eq(row.iter().copied()))
            .count()
    }

    pub(crate) fn has(&self, row: &[&str]) -> bool {
        self.count(row) > 0
    }

    pub(crate) fn is_in(&self, folder: &str) -> bool {
        Path::new(&self.path).starts_with(folder)
    }

    /// Returns true for an integration test or a module of unit tests.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }
}

/// Reads all sources of these directories.
pub(crate) fn sources(folders: &[&str]) -> Result<Vec<Source>> {
    let mut files = Vec::new();
    for folder in folders {
        find(&root().join(folder), &mut files)?;
    }
    ensure!(files.len() > 3, "{folders:?} have hardly any sources");
    let source = |file: PathBuf| {
        let path = file.strip_prefix(root())?.display().to_string();
        let text = fs::read_to_string(&file)?;
        let words = Source::words_of(&text).with_context(|| path.clone())?;
        Ok(Source { path, words })
    };
    files.into_iter().map(source).collect()
}

/// Finds all Rust files below a directory.
pub(crate) fn find(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
    Ok(())
}

fn flatten(tokens: TokenStream, into: &mut Vec<String>) {
    let mut trees = tokens.into_iter().peekable();
    while let Some(tree) = trees.next() {
        match tree {
            TokenTree::Punct(sign) if sign.as_char() == '#' => attribute(&mut trees, into),
            TokenTree::Punct(sign) => into.push(sign.to_string()),
            TokenTree::Ident(word) => into.push(word.to_string()),
            TokenTree::Literal(literal) => into.push(literal.to_string()),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                into.push(open.to_owned());
                flatten(group.stream(), into);
                into.push(close.to_owned());
            }
        }
    }
}

/// Reads the attribute after a `#`. Skips doc comments, and for `cfg(test)` the item after it.
fn attribute(trees: &mut Peekable<token_stream::IntoIter>, into: &mut Vec<String>) {
    if matches!(trees.peek(), Some(TokenTree::Punct(sign)) if sign.as_char() == '!') {
        trees.next();
    }
    let Some(TokenTree::Group(group)) = trees.next() else {
        return;
    };
    let mut words = Vec::new();
    flatten(group.stream(), &mut words);
    if words == ["cfg", "(", "test", ")"] {
        for tree in trees {
            match tree {
                TokenTree::Group(body) if body.delimiter() == Delimiter::Brace => break,
                TokenTree::Punct(end) if end.as_char() == ';' => break,
                _ => {}
            }
        }
    } else if words.first().is_none_or(|first| first != "doc") {
        into.push("#".to_owned());
        into.extend(words);
    }
}

/// Asserts that the condition holds for exactly these files.
pub(crate) fn assert_only(sources: &[Source], expected: &[&str], what: &str, is_so: impl Fn(&Source) -> bool) {
    let found: BTreeSet<&str> = sources
        .iter()
        .filter(|source| is_so(source))
        .map(|source| &*source.path)
        .collect();
    assert_eq!(found, expected.iter().copied().collect(), "{what}");
}
