//! Errors of device specifications.

/// Least similarity of a suggestion.
const SIMILAR: f64 = 0.75;

/// Error of a device specification. Each names the key, the mistake and the expected value.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// The key or flag does not exist.
    #[error("unknown key `{key}`; {suggestion}")]
    Unknown {
        /// Text as given.
        key: String,
        /// Similar key, or all keys.
        suggestion: String,
    },
    /// The key cannot have this value.
    #[error("{key}: `{value}` is not {expected}")]
    Value {
        /// Name of the key.
        key: &'static str,
        /// Text as given.
        value: String,
        /// Description of valid values.
        expected: &'static str,
    },
    /// The key was given twice.
    #[error("{key}: given twice, `{first}` and `{second}`; expected once")]
    Twice {
        /// Name of the key.
        key: &'static str,
        /// First value.
        first: String,
        /// Second value.
        second: String,
    },
    /// The key is required.
    #[error("{key}: is missing; expected {expected}")]
    Missing {
        /// Name of the key.
        key: &'static str,
        /// Description of valid values.
        expected: &'static str,
    },
    /// There is a value without a key too many.
    #[error("`{0}` is one too many; expected at most target, format, vdev and access without a key")]
    TooMany(String),
    /// xl supports the key and this crate does not.
    #[error("{key}: {why}")]
    Unsupported {
        /// Name of the key.
        key: String,
        /// Reason.
        why: &'static str,
    },
}

impl SpecError {
    pub(super) fn unknown(key: &str, known: &[&str]) -> Self {
        let best = known
            .iter()
            .map(|candidate| (strsim::jaro_winkler(key, candidate), candidate))
            .filter(|(likeness, _)| *likeness > SIMILAR)
            .max_by(|one, other| one.0.total_cmp(&other.0));
        Self::Unknown {
            key: key.to_owned(),
            suggestion: match best {
                Some((_, candidate)) => format!("did you mean `{candidate}`?"),
                None => format!("expected one of {}", known.join(", ")),
            },
        }
    }

    pub(super) fn value(key: &'static str, value: &str, expected: &'static str) -> Self {
        Self::Value {
            key,
            value: value.to_owned(),
            expected,
        }
    }

    pub(super) fn unsupported(key: &str, why: &'static str) -> Self {
        Self::Unsupported {
            key: key.to_owned(),
            why,
        }
    }
}

/// Sets a key that may be given once; an empty value counts as none (tools/libs/util/libxlu_disk_l.l, `savestring`).
pub(super) fn once(key: &'static str, to: &mut Option<String>, value: &str) -> Result<(), SpecError> {
    match to {
        Some(first) if !first.is_empty() => Err(SpecError::Twice {
            key,
            first: first.clone(),
            second: value.to_owned(),
        }),
        _ => {
            *to = Some(value.to_owned());
            Ok(())
        }
    }
}
