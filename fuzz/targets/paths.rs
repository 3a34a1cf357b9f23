//! Fuzz target of the property `paths`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xenplug_properties::check("paths", bytes));
