//! Paths of the store, checked once, as they are parsed.

use std::{fmt, str::FromStr, sync::Arc};

/// `XENSTORE_ABS_PATH_MAX` (xs_wire.h).
const ABSOLUTE_MAX: usize = 3072;

/// `XENSTORE_REL_PATH_MAX` (xs_wire.h).
const RELATIVE_MAX: usize = 2048;

/// The path of a node, as xenstored accepts it (tools/xenstored/core.c, `is_valid_nodename`).
///
/// It is absolute (`/local/domain/1/backend`, at most 3072 bytes), relative to the home of the requesting domain
/// (`backend/vbd`, at most 2048 bytes), or special, for watches and their permissions (`@releaseDomain`). Its characters
/// are letters, digits and `-/_@`; no component is empty, and only the root itself ends in `/`.
///
/// ```
/// use xenplug_xenstore::Path;
///
/// let backend: Path = "/local/domain/1/backend".parse()?;
/// assert_eq!(backend.join("vbd")?.as_str(), "/local/domain/1/backend/vbd");
/// assert!("backend//vbd".parse::<Path>().is_err());
/// # Ok::<(), xenplug_xenstore::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Path(Arc<str>);

/// Error for a text that is not a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// no characters
    #[error("a path is empty")]
    Empty,
    /// too many bytes
    #[error("a path of {0} bytes is too long")]
    TooLong(usize),
    /// a character that xenstored refuses
    #[error("a path contains byte 0x{0:02x}; only letters, digits and -/_@ are allowed")]
    Character(u8),
    /// two slashes in a row, or one at the end
    #[error("a component of a path is empty")]
    EmptyComponent,
}

impl Path {
    /// Returns the root of the store.
    pub fn root() -> Self {
        Self("/".into())
    }

    /// Returns the home of a domain, where its relative paths start: `/local/domain/<domid>`.
    pub fn home(domid: u16) -> Self {
        Self(format!("/local/domain/{domid}").into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the path starts at the root.
    pub fn is_absolute(&self) -> bool {
        self.0.starts_with('/')
    }

    /// Returns whether the path names an event instead of a node.
    pub fn is_special(&self) -> bool {
        self.0.starts_with('@')
    }

    /// Appends one component or several.
    pub fn join(&self, below: &str) -> Result<Self, PathError> {
        let slash = if self.0.ends_with('/') { "" } else { "/" };
        format!("{}{slash}{below}", self.0).parse()
    }

    /// Returns the path of the parent node. The root and a relative path of one component have none.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rsplit_once('/')? {
            (_, "") => None,
            ("", _) => Some(Self::root()),
            (parent, _) => Some(Self(parent.into())),
        }
    }

    /// Returns the last component, which is empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// Iterates over the components.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// Returns the part below `ancestor`: empty if they are equal, `None` if the path is not below.
    pub fn below(&self, ancestor: &Path) -> Option<&str> {
        if ancestor.0.ends_with('/') {
            return self.0.strip_prefix('/');
        }
        let rest = self.0.strip_prefix(ancestor.as_str())?;
        if rest.is_empty() {
            Some(rest)
        } else {
            rest.strip_prefix('/')
        }
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let limit = if text.starts_with('/') {
            ABSOLUTE_MAX
        } else {
            RELATIVE_MAX
        };
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.len() > limit {
            return Err(PathError::TooLong(text.len()));
        }
        if let Some(byte) = text
            .bytes()
            .find(|byte| !byte.is_ascii_alphanumeric() && !b"-/_@".contains(byte))
        {
            return Err(PathError::Character(byte));
        }
        if text.contains("//") || (text.ends_with('/') && text != "/") {
            return Err(PathError::EmptyComponent);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, to)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn path_that_xenstored_refuses_is_an_error() {
        for text in [
            "", "//", "/a/", "a/", "/a//b", "/a b", "/a.b", "/a:b", "/ä", "/a\0", "/a\n",
        ] {
            assert!(text.parse::<Path>().is_err(), "{text:?}");
        }
        for text in [
            "/",
            "/a",
            "a",
            "backend/vbd/3/51712",
            "@releaseDomain",
            "/vm/6c1d-8",
            "/a_@",
        ] {
            assert_eq!(path(text).as_str(), text);
        }
        assert!(format!("/{}", "a".repeat(3071)).parse::<Path>().is_ok());
        assert_eq!(
            format!("/{}", "a".repeat(3072)).parse::<Path>(),
            Err(PathError::TooLong(3073))
        );
        assert!("a".repeat(2048).parse::<Path>().is_ok());
        assert_eq!("a".repeat(2049).parse::<Path>(), Err(PathError::TooLong(2049)));
    }

    #[test]
    fn path_knows_its_parent_name_and_descendants() {
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(path("/a").parent(), Some(Path::root()));
        assert_eq!(Path::root().parent(), None);
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(path("/a/b").name(), "b");
        assert_eq!(Path::root().join("a/b"), Ok(path("/a/b")));
        assert!(path("/a").join("").is_err());
        assert!(path("/a").join("/b").is_err());
        assert_eq!(path("/a/b/c").below(&path("/a")), Some("b/c"));
        assert_eq!(path("/a").below(&path("/a")), Some(""));
        assert_eq!(path("/ab").below(&path("/a")), None);
        assert_eq!(path("/ab").below(&Path::root()), Some("ab"));
        assert_eq!(path("/a/b").components().collect::<Vec<_>>(), ["a", "b"]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_an_error(text: String) {
            if let Ok(path) = text.parse::<Path>() {
                prop_assert_eq!(path.as_str(), &text);
                prop_assert!(path.parent().is_none_or(|parent| parent.as_str().parse() == Ok(parent.clone())));
            }
        }

        #[test]
        fn child_is_below_its_parent(parent in "/[a-z]{1,4}(/[a-z]{1,4}){0,3}", name in "[a-zA-Z0-9_@-]{1,8}") {
            let parent = path(&parent);
            let child = parent.join(&name).unwrap();
            prop_assert_eq!(child.parent(), Some(parent.clone()));
            prop_assert_eq!(child.below(&parent), Some(&*name));
            prop_assert_eq!(child.name(), &*name);
        }
    }
}
