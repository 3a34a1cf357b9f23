//! What a helper writes, as lines: the last ones, and no more of them than anybody reads.

use std::collections::VecDeque;

use crate::clean;

/// The lines that are kept.
const LINES: usize = 32;

/// Bytes of the longest line; the rest of it is forgotten.
const LINE: usize = 512;

/// Lines that are passed on of what was written at a time; the rest is counted.
const PASSED_ON: usize = 64;

/// What a helper has written.
#[derive(Debug, Default)]
pub(super) struct Words {
    lines: VecDeque<String>,
    count: u64,
    /// The beginning of a line that has no end yet.
    begun: Vec<u8>,
}

impl Words {
    /// Takes what was written. Answers with what is to be passed on.
    pub(super) fn hear(&mut self, said: &[u8]) -> Vec<String> {
        let mut heard = Vec::new();
        let mut dropped = 0;
        for piece in said.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE.saturating_sub(self.begun.len());
            self.begun.extend(piece.iter().take(room));
            if piece.last() != Some(&b'\n') {
                continue;
            }
            let line = std::mem::take(&mut self.begun);
            let line = clean(String::from_utf8_lossy(&line).trim(), 2 * LINE);
            if line.is_empty() {
                continue;
            }
            self.count += 1;
            self.lines.push_back(line.clone());
            if self.lines.len() > LINES {
                self.lines.pop_front();
            }
            match heard.len() < PASSED_ON {
                true => heard.push(line),
                false => dropped += 1,
            }
        }
        if dropped > 0 {
            heard.push(format!("({dropped} lines more)"));
        }
        heard
    }

    /// How many lines it has written.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The newest line after the first `after` ones that holds a text.
    pub(super) fn line_with(&self, after: u64, text: &str) -> Option<String> {
        let new = usize::try_from(self.count.saturating_sub(after)).unwrap_or(usize::MAX);
        self.lines
            .iter()
            .rev()
            .take(new)
            .find(|line| line.contains(text))
            .cloned()
    }

    /// A cause, with the last line behind it, if there is one.
    pub(super) fn after(&self, cause: String) -> String {
        match self.lines.back() {
            Some(line) => format!("{cause}; the last that it wrote: {line}"),
            None => cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_heard_whole_and_the_last_ones_kept() {
        let mut words = Words::default();
        assert_eq!(words.hear(b"one\ntw"), ["one"]);
        assert_eq!(words.hear(b"o\n\n\x1b[1mthree\n"), ["two", "[1mthree"]);
        assert_eq!(words.count(), 3);
        assert_eq!(words.line_with(1, "two"), Some("two".to_owned()));
        assert_eq!(words.line_with(2, "two"), None, "it was written before");
        assert_eq!(
            words.after("it ended".to_owned()),
            "it ended; the last that it wrote: [1mthree"
        );
    }

    #[test]
    fn a_flood_is_counted_and_a_line_without_end_is_cut() {
        let mut words = Words::default();
        let heard = words.hear("x\n".repeat(1000).as_bytes());
        assert_eq!(heard.len(), PASSED_ON + 1);
        assert_eq!(heard[PASSED_ON], "(936 lines more)");
        assert_eq!((words.lines.len(), words.count()), (LINES, 1000));
        for _ in 0..100 {
            assert!(words.hear(&[b'y'; 4096]).is_empty());
            assert!(words.begun.len() <= LINE);
        }
        assert_eq!(words.hear(b"\n"), ["y".repeat(LINE)]);
    }
}
