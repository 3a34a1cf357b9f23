//! Output lines of a helper: the last ones, and a bound on what goes to the log.

use std::collections::VecDeque;

use crate::text::clean;

/// Lines that are kept.
const LINES: usize = 32;

/// Bytes of the longest line; the rest of it is dropped.
const LINE: usize = 512;

/// Lines that one read passes on to the log; the rest is counted.
const LOGGED: usize = 64;

/// Output of one helper.
#[derive(Debug, Default)]
pub(super) struct Output {
    lines: VecDeque<String>,
    count: u64,
    /// The beginning of a line that has no end yet.
    partial: Vec<u8>,
}

impl Output {
    /// Adds what was read. Returns the lines for the log.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut logged = Vec::new();
        let mut dropped = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE.saturating_sub(self.partial.len());
            self.partial.extend(piece.iter().take(room));
            if piece.last() != Some(&b'\n') {
                continue;
            }
            let line = std::mem::take(&mut self.partial);
            let line = clean(String::from_utf8_lossy(&line).trim(), 2 * LINE);
            if line.is_empty() {
                continue;
            }
            self.count += 1;
            self.lines.push_back(line.clone());
            if self.lines.len() > LINES {
                self.lines.pop_front();
            }
            match logged.len() < LOGGED {
                true => logged.push(line),
                false => dropped += 1,
            }
        }
        if dropped > 0 {
            logged.push(format!("({dropped} lines more)"));
        }
        logged
    }

    /// The number of lines so far.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The newest line after the first `after` lines that holds a text.
    pub(super) fn line_with(&self, after: u64, text: &str) -> Option<String> {
        let new = usize::try_from(self.count.saturating_sub(after)).unwrap_or(usize::MAX);
        self.lines
            .iter()
            .rev()
            .take(new)
            .find(|line| line.contains(text))
            .cloned()
    }

    /// A cause, followed by the last line, if there is one.
    pub(super) fn explain(&self, cause: String) -> String {
        match self.lines.back() {
            Some(line) => format!("{cause}; its last output line: {line}"),
            None => cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_whole_and_the_last_ones_kept() {
        let mut output = Output::default();
        assert_eq!(output.add(b"one\ntw"), ["one"]);
        assert_eq!(output.add(b"o\n\n\x1b[1mthree\n"), ["two", "[1mthree"]);
        assert_eq!(output.count(), 3);
        assert_eq!(output.line_with(1, "two"), Some("two".to_owned()));
        assert_eq!(output.line_with(2, "two"), None, "it was written before");
        assert_eq!(
            output.explain("it ended".to_owned()),
            "it ended; its last output line: [1mthree"
        );
    }

    #[test]
    fn flood_is_counted_and_an_endless_line_is_cut() {
        let mut output = Output::default();
        let logged = output.add("x\n".repeat(1000).as_bytes());
        assert_eq!(logged.len(), LOGGED + 1);
        assert_eq!(logged[LOGGED], "(936 lines more)");
        assert_eq!((output.lines.len(), output.count()), (LINES, 1000));
        for _ in 0..100 {
            assert!(output.add(&[b'y'; 4096]).is_empty());
            assert!(output.partial.len() <= LINE);
        }
        assert_eq!(output.add(b"\n"), ["y".repeat(LINE)]);
    }
}
