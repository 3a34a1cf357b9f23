//! The rigs, tests, demo and benchmarks that run Xenplug on real parts.
