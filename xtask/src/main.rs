//! cargo xtask: set-up, build, test, demo and benchmarks.
fn main() {}
