//! xenplug.
fn main() {}
