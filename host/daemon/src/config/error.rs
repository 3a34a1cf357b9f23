//! Errors of the configuration: the file, the line, the mistake, and advice.

use std::{
    io,
    path::{Path, PathBuf},
};

use toml::Spanned as Placed;

/// A mistake in the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {file}, which --config FILE names", file = .file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{file}:{line}: {what}; {advice}", file = .file.display())]
    Line {
        file: PathBuf,
        line: usize,
        what: String,
        advice: String,
    },
    #[error("{file}: {what}; {advice}", file = .file.display())]
    Whole {
        file: PathBuf,
        what: String,
        advice: String,
    },
}

/// The file and its text, for errors that name a line.
pub(super) struct Source<'a> {
    pub(super) file: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// Returns the line, from 1, of a byte of the text.
    pub(super) fn line(&self, byte: usize) -> usize {
        self.text.bytes().take(byte).filter(|b| *b == b'\n').count() + 1
    }

    pub(super) fn at<T>(&self, value: &Placed<T>, what: &str, advice: &str) -> ConfigError {
        ConfigError::Line {
            file: self.file.to_owned(),
            line: self.line(value.span().start),
            what: what.to_owned(),
            advice: advice.to_owned(),
        }
    }

    pub(super) fn whole(&self, what: &str, advice: &str) -> ConfigError {
        ConfigError::Whole {
            file: self.file.to_owned(),
            what: what.to_owned(),
            advice: advice.to_owned(),
        }
    }

    /// Converts an error of the TOML reader. For an unknown key the advice names the nearest known key.
    pub(super) fn toml(&self, error: &toml::de::Error) -> ConfigError {
        let message = error.message().replace('\n', " ");
        let mut words = message.split('`').skip(1).step_by(2);
        let (what, advice) = match (message.starts_with("unknown "), words.next()) {
            (true, Some(word)) => {
                let known: Vec<&str> = words.collect();
                let what = if message.starts_with("unknown field") {
                    format!("unknown key `{word}`")
                } else {
                    format!("unknown value `{word}`")
                };
                (what, suggestion(word, &known))
            }
            _ => (message, "see the configuration in the README".to_owned()),
        };
        ConfigError::Line {
            file: self.file.to_owned(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            what,
            advice,
        }
    }
}

fn suggestion(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None if known.is_empty() => "remove it".to_owned(),
        None => format!(
            "expected one of {}",
            known.iter().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
        ),
    }
}
