//! Fuzz target of the property `specs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| xenplug_properties::check("specs", bytes));
