//! Properties of the parsers of untrusted input: from guests, toolstacks, a broken store, a damaged disk.
//!
//! Each property decodes its input from bytes and panics if it does not hold. The programs of `fuzz/` let libFuzzer search
//! for such bytes; this crate's test runs the corpora in `fuzz/corpus`. libFuzzer itself limits the use of memory
//! (`cargo xtask fuzz` sets the limit).

mod directories;
mod frames;
mod paths;
mod records;
mod scripts;
mod settings;
mod specs;

/// Property, with the name of its corpus.
pub type Property = (&'static str, fn(&[u8]));

/// All properties.
pub const PROPERTIES: [Property; 7] = [
    ("directories", directories::check),
    ("frames", frames::check),
    ("paths", paths::check),
    ("records", records::check),
    ("scripts", scripts::check),
    ("settings", settings::check),
    ("specs", specs::check),
];

/// Checks the property with this name.
pub fn check(name: &str, bytes: &[u8]) {
    let known = PROPERTIES.iter().find(|(known, _)| *known == name);
    known.unwrap_or_else(|| panic!("there is no property {name}")).1(bytes);
}
