//! Strings from guests and from the store, made fit for a terminal, a log or a store node.

use std::error::Error;

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line = format!("{line}: {cause}");
        next = cause.source();
    }
    line
}

/// Returns whether a character can change how the rest of a line is shown: control characters, and those by which
/// Unicode turns text around or hides in it (UAX #9, UTS #39).
pub(crate) fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || ('\u{e0000}'..='\u{e007f}').contains(&c)
}

/// Makes one line of at most `limit` bytes: control characters and the like become spaces, runs of white space one
/// space, and a line that is cut ends in `…`.
pub fn clean(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    let mut gap = false;
    for c in text.chars() {
        if is_deceptive(c) || c.is_whitespace() {
            gap = !line.is_empty();
            continue;
        }
        let needed = c.len_utf8() + usize::from(gap) + '…'.len_utf8();
        if line.len() + needed > limit {
            line.push('…');
            break;
        }
        if gap {
            line.push(' ');
            gap = false;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn line_is_bounded_and_without_control_characters() {
        for (text, limit, expected) in [
            ("plain", 80, "plain"),
            ("two\nlines\tand\0nul", 80, "two lines and nul"),
            ("\x1b[31mred\x1b[0m", 80, "[31mred [0m"),
            ("gnp.\u{202e}sys\u{2066}x\u{feff}y", 80, "gnp. sys x y"),
            ("  padded  ", 80, "padded"),
            ("cut off here", 9, "cut of…"),
            ("éééééé", 8, "éé…"),
            ("", 8, ""),
        ] {
            let line = clean(text, limit);
            assert_eq!(line, expected, "{text:?}");
            assert!(line.len() <= limit);
        }
    }
}
