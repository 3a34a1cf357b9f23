//! Records of anything, cut anywhere, against a model.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

#[derive(Clone, Debug)]
enum Op {
    Intent(String),
    Completed(Index, String),
    Released(Index),
    Note(String),
    /// The daemon is killed in the middle of a write, and started again.
    Killed(Index),
}

fn any_op() -> impl Strategy<Value = Op> {
    let index = any::<Index>;
    prop_oneof![
        4 => any::<String>().prop_map(Op::Intent),
        3 => (index(), any::<String>()).prop_map(|(index, text)| Op::Completed(index, text)),
        2 => index().prop_map(Op::Released),
        1 => any::<String>().prop_map(Op::Note),
        1 => index().prop_map(Op::Killed),
    ]
}

/// The held effects, and the last note.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    held: BTreeMap<u64, (Effect, bool)>,
    note: Option<String>,
}

impl Model {
    fn of(replayed: &Replayed<Header, Effect>) -> Self {
        let held = replayed
            .held
            .iter()
            .map(|held| (held.seq, (held.effect.clone(), held.completed)))
            .collect();
        Self {
            held,
            note: replayed.note.clone(),
        }
    }

    fn any_held(&self, index: Index) -> Option<u64> {
        let seqs: Vec<u64> = self.held.keys().copied().collect();
        if seqs.is_empty() { None } else { Some(*index.get(&seqs)) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn record_cut_anywhere_tells_what_was_written_before(ops in vec(any_op(), 0..40), cut in any::<Index>()) {
        let dir = TempDir::new().unwrap();
        let path = path_in(dir.path());
        let journal = Journal::open(dir.path()).unwrap();
        let mut record = journal.begin(NAME, &header()).unwrap();
        let mut model = Model::default();
        // The expected state after so many bytes.
        let mut expected_at = vec![(fs::metadata(&path).unwrap().len(), model.clone())];
        for op in ops {
            match op {
                Op::Intent(text) => {
                    let effect = Effect::Link(text);
                    let seq = record.intent(&effect).unwrap();
                    prop_assert!(model.held.keys().all(|before| *before < seq));
                    model.held.insert(seq, (effect, false));
                }
                Op::Completed(index, text) => {
                    let Some(seq) = model.any_held(index) else { continue };
                    let effect = Effect::Loop { number: Some(1), file: text };
                    record.completed(seq, &effect).unwrap();
                    model.held.insert(seq, (effect, true));
                }
                Op::Released(index) => {
                    let Some(seq) = model.any_held(index) else { continue };
                    record.released(seq).unwrap();
                    model.held.remove(&seq);
                }
                Op::Note(text) => {
                    record.note(&text).unwrap();
                    model.note = Some(text);
                }
                Op::Killed(index) => {
                    let bytes = fs::read(&path).unwrap();
                    // Half of some line of its own.
                    let line = bytes.split_inclusive(|b| *b == b'\n').next_back().unwrap();
                    let torn = [&bytes, &line[..index.index(line.len())]].concat();
                    fs::write(&path, torn).unwrap();
                    let mut replay = journal.replay().unwrap();
                    prop_assert!(replay.aside.is_empty());
                    let replayed = replay.records.remove(0);
                    prop_assert_eq!(Model::of(&replayed), model.clone());
                    record = replayed.record;
                    prop_assert_eq!(fs::read(&path).unwrap(), bytes);
                }
            }
            prop_assert_eq!(record.holds(), model.held.len());
            expected_at.push((fs::metadata(&path).unwrap().len(), model.clone()));
        }
        drop(record);
        let bytes = fs::read(&path).unwrap();
        let cut = cut.index(bytes.len() + 1);
        fs::write(&path, &bytes[..cut]).unwrap();
        let replay = journal.replay::<Header, Effect>().unwrap();
        prop_assert!(replay.aside.is_empty());
        match expected_at.iter().rev().find(|(length, _)| *length <= cut as u64) {
            Some((_, expected)) => prop_assert_eq!(&Model::of(&replay.records[0]), expected),
            None => prop_assert_eq!((replay.records.len(), replay.torn), (0, vec![NAME.to_owned()])),
        }
    }
}
