//! Fuzz target of the property `directories`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xenplug_properties::check("directories", bytes));
