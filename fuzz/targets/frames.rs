//! Fuzz target of the property `frames`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xenplug_properties::check("frames", bytes));
