//! Fuzz target of the property `records`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xenplug_properties::check("records", bytes));
