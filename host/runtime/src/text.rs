//! Strings from guests and from the store, made fit for a terminal, a log or a store node.

/// One line of at most `limit` bytes: control characters become spaces, runs of white space one space, and what is cut
/// off ends in `…`.
pub fn clean(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit));
    let mut gap = false;
    for c in text.chars() {
        if c.is_control() || c.is_whitespace() {
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
    fn a_line_holds_no_control_characters_and_keeps_its_bound() {
        for (text, limit, expected) in [
            ("plain", 80, "plain"),
            ("two\nlines\tand\0nul", 80, "two lines and nul"),
            ("\x1b[31mred\x1b[0m", 80, "[31mred [0m"),
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
