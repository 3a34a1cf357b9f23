//! What holds of everything that others may write: guests, toolstacks, a broken store, a damaged disk.
//!
//! Each property takes bytes, makes what it is about of them, and panics where something is not as it must be. The
//! programs of `fuzz/` let libFuzzer look for such bytes; what it has kept in `fuzz/corpus` is tried by this crate's test.
//! That nothing takes much memory is libFuzzer's own check (`cargo xtask fuzz` gives it a limit).

mod directories;
mod frames;
mod paths;
mod records;
mod scripts;
mod settings;
mod specs;

/// A property, by the name of its corpus.
pub type Property = (&'static str, fn(&[u8]));

/// All of them.
pub const PROPERTIES: [Property; 7] = [
    ("directories", directories::check),
    ("frames", frames::check),
    ("paths", paths::check),
    ("records", records::check),
    ("scripts", scripts::check),
    ("settings", settings::check),
    ("specs", specs::check),
];

/// Checks the property of that name.
pub fn check(name: &str, bytes: &[u8]) {
    let known = PROPERTIES.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("there is no property {name}")).1(bytes);
}
