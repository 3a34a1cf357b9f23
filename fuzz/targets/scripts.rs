//! Fuzz target of the property `scripts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xenplug_properties::check("scripts", bytes));
