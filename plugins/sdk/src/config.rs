//! Settings of the operator for this plugin, `[plugin.NAME.config]`, always granted.

use crate::Error;
pub use crate::bindings::xen::hotplug::config::value;

/// Reads a setting that is `true` or `false`; `false` if it is not set.
pub fn flag(key: &str) -> Result<bool, Error> {
    parse_flag(key, value(key).as_deref())
}

fn parse_flag(key: &str, value: Option<&str>) -> Result<bool, Error> {
    match value {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Error::Other(format!(
            "setting `{key}`: `{other}` is neither true nor false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_is_true_false_or_unset() {
        assert_eq!(parse_flag("mac-filter", None), Ok(false));
        assert_eq!(parse_flag("mac-filter", Some("false")), Ok(false));
        assert_eq!(parse_flag("mac-filter", Some("true")), Ok(true));
        assert_eq!(
            parse_flag("mac-filter", Some("yes")),
            Err(Error::Other(
                "setting `mac-filter`: `yes` is neither true nor false".into()
            ))
        );
    }
}
