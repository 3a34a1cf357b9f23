//! Runs every property on its corpus.

use std::{fs, path::Path};

use xenplug_properties::PROPERTIES;

/// Limit of the size of all corpora, in bytes.
const MOST: u64 = 200 << 10;

#[test]
#[allow(clippy::print_stdout, reason = "it tells which entry was the last")]
fn corpus_inputs_satisfy_every_property() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let mut bytes = 0;
    for (name, check) in PROPERTIES {
        let folder = fs::read_dir(root.join(name)).unwrap_or_else(|error| panic!("{name} has no corpus: {error}"));
        let mut entries = 0;
        for entry in folder {
            let path = entry.expect("an entry").path();
            let content = fs::read(&path).expect("it can be read");
            println!("{}", path.display());
            check(&content);
            entries += 1;
            bytes += content.len() as u64;
        }
        assert!(entries > 5, "the corpus of {name} has {entries} entries");
    }
    assert!(bytes < MOST, "the corpora have {bytes} bytes");
}
