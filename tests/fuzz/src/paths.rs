//! Paths and names, of which guests and toolstacks write parts.

use xenplug_xenbus::{DeviceKey, DomId, Kind, ScriptName, WatchLevel, WatchedPath};
use xenplug_xenstore::{Path, Permission};

/// Parses a text as every kind of path and name.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(path) = text.parse::<Path>() {
        is_valid_path(&path, text);
    }
    if let Ok(permission) = text.parse::<Permission>() {
        assert_eq!(permission.to_string().parse(), Ok(permission));
    }
    if let Ok(kind) = text.parse::<Kind>() {
        assert_eq!(kind.as_str(), text);
        assert!(!text.contains(['/', '.', '\0']), "{text:?} is a kind");
    }
    if let Ok(key) = text.parse::<DeviceKey>() {
        assert_eq!(key.to_string(), text);
    }
    if let Ok(script) = ScriptName::parse(text) {
        assert!(!script.as_str().contains(['/', '\0', '\n']), "{text:?} is a script");
        assert!(!matches!(script.as_str(), "" | "." | ".."), "{text:?} is a script");
    }
    if let Ok(watched) = WatchedPath::parse(text, DomId(3))
        && let WatchLevel::Device { key, leaf } = watched.level
    {
        let again = format!("/local/domain/{}/backend/{key}", watched.backend);
        let again = leaf.map_or_else(|| again.clone(), |leaf| format!("{again}/{leaf}"));
        assert!(
            again.ends_with(text.trim_start_matches('/')),
            "{text:?} is parsed as {again:?}"
        );
    }
}

/// Checks that a parsed path is valid for xenstored and keeps its text.
fn is_valid_path(path: &Path, text: &str) {
    assert_eq!(path.as_str(), text);
    assert!(
        text.len() <= 3072 && !text.contains("//") && !text.contains('\0'),
        "{text:?}"
    );
    if let Some(parent) = path.parent() {
        if !path.is_special() && path.name() != "" {
            assert_eq!(parent.join(path.name()).as_ref(), Ok(path));
        }
        assert!(path.below(&parent).is_some(), "{text:?} is not below {parent}");
    }
    if let Ok(below) = path.join("x") {
        assert_eq!(below.parent().as_ref(), Some(path));
        assert_eq!(below.below(path), Some("x"));
    }
}
