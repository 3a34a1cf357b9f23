//! Why a text does not describe a device.

/// Below that similarity two words have nothing to do with each other.
const SIMILAR: f64 = 0.75;

/// Why a text does not describe a device. Each names the key, what is wrong, and what is expected.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// A key or flag that there is not.
    #[error("unknown key `{key}`; {suggestion}")]
    Unknown {
        /// As it was written.
        key: String,
        /// What may have been meant.
        suggestion: String,
    },
    /// A value that the key cannot have.
    #[error("{key}: `{value}` is not {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// As it was written.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// A key that was given twice.
    #[error("{key}: given twice, `{first}` and `{second}`; expected once")]
    Twice {
        /// The key.
        key: &'static str,
        /// The value it has.
        first: String,
        /// The value it was to get.
        second: String,
    },
    /// A key that has to be there.
    #[error("{key}: is missing; expected {expected}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it can be.
        expected: &'static str,
    },
    /// One word too many.
    #[error("`{0}` is one too many; expected at most target, format, vdev and access without a key")]
    TooMany(String),
    /// Something that xl knows, and that cannot be had here.
    #[error("{key}: {why}")]
    Unsupported {
        /// The key.
        key: String,
        /// Why not.
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

/// Sets what may be set once; an empty value counts as none (tools/libs/util/libxlu_disk_l.l, `savestring`).
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
