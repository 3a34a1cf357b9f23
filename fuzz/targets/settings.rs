//! Fuzz target of the property `settings`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xenplug_properties::check("settings", bytes));
