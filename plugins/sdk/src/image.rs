//! Image files and their formats, as libxl names them together.

use crate::Error;

/// An image and its format, as in `qcow2:/srv/a.qcow2` (libxl_disk.c, `libxl__device_disk_string_of_format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'p> {
    /// Format: letters, digits and `-`, never empty, so that nobody guesses it from the image's content, which a guest
    /// may have written.
    pub format: &'p str,
    /// Absolute path, which may contain colons.
    pub path: &'p str,
}

impl<'p> Image<'p> {
    /// Parses `params`.
    pub fn parse(params: &'p str) -> Result<Self, Error> {
        let invalid = || {
            Error::invalid(
                "params",
                format!("`{params}` is not a format and a path, as in aio:/srv/a.img"),
            )
        };
        let (format, path) = params.split_once(':').ok_or_else(invalid)?;
        let plain = |sign: char| sign.is_ascii_alphanumeric() || sign == '-';
        if format.is_empty() || format.starts_with('-') || !format.chars().all(plain) || !path.starts_with('/') {
            return Err(invalid());
        }
        Ok(Self { format, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn params_are_a_format_and_a_path() {
        for (params, format, path) in [
            ("aio:/srv/a.img", "aio", "/srv/a.img"),
            ("vhd:/srv/a b:c.vhd", "vhd", "/srv/a b:c.vhd"),
        ] {
            assert_eq!(Image::parse(params), Ok(Image { format, path }));
        }
        for odd in [
            "",
            "aio",
            "aio:",
            "aio:a.img",
            ":/srv/a.img",
            "-a:/srv/a.img",
            "/srv/a.img",
            "a b:/srv/a.img",
        ] {
            assert!(Image::parse(odd).is_err(), "{odd}");
        }
    }
}
