//! xenplugd.
fn main() {}
