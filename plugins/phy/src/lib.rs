//! The handler for block devices and disk image files.
