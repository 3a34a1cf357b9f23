//! Alternate screen of a terminal, restored when dropped.

use std::io::{self, IsTerminal, Stdout, Write};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::Print,
    terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, size},
};

/// Alternate screen without a cursor. Dropping it restores the terminal.
pub(super) struct Screen(Stdout);

impl Screen {
    /// Enters the alternate screen if the output is a terminal.
    pub(super) fn take() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let mut screen = Self(io::stdout());
        execute!(screen.0, EnterAlternateScreen, Hide)?;
        Ok(Some(screen))
    }

    /// Draws a table and the last events below it, line by line over the old contents so that nothing flickers.
    pub(super) fn show(&mut self, table: &str, events: &[String]) -> io::Result<()> {
        let (columns, rows) = size()?;
        let lines = fit(table, events, usize::from(columns), usize::from(rows));
        for (row, line) in (0..).zip(&lines) {
            queue!(self.0, MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        // Without a free line there is nothing below to clear.
        if lines.len() < usize::from(rows) {
            queue!(self.0, Print("\r\n"), Clear(ClearType::FromCursorDown))?;
        }
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = execute!(self.0, Show, LeaveAlternateScreen);
    }
}

/// Cuts table and events to the screen. The table gets at least half of it and ends with the number of hidden lines.
fn fit(table: &str, events: &[String], columns: usize, rows: usize) -> Vec<String> {
    let table: Vec<&str> = table.lines().collect();
    let for_events = (rows / 2).max(rows.saturating_sub(table.len())).saturating_sub(1);
    let events = &events[events.len().saturating_sub(for_events)..];
    let for_table = rows.saturating_sub(if events.is_empty() { 0 } else { events.len() + 1 });
    let mut lines: Vec<String> = table.iter().map(|line| (*line).to_owned()).collect();
    if table.len() > for_table {
        lines.truncate(for_table.saturating_sub(1));
        lines.push(format!("… {} lines more", table.len() - lines.len()));
    }
    if !events.is_empty() {
        lines.push(String::new());
        lines.extend(events.iter().cloned());
    }
    lines.truncate(rows);
    lines.iter().map(|line| line.chars().take(columns).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_events_are_cut_to_the_screen() {
        let events = ["one", "two", "three"].map(str::to_owned);
        let shown = |table: &str, columns, rows| fit(table, &events, columns, rows);
        assert_eq!(shown("a\nb\n", 80, 24), ["a", "b", "", "one", "two", "three"]);
        assert_eq!(shown("a\nb\n", 80, 5), ["a", "b", "", "two", "three"]);
        assert_eq!(
            shown("a\nb\nc\nd\ne\n", 80, 6),
            ["a", "b", "… 3 lines more", "", "two", "three"]
        );
        assert_eq!(shown("a\nb\nc\nd\ne\n", 3, 6)[..3], ["a", "b", "… 3"]);
        for rows in 0..4 {
            assert!(shown("a\nb\nc\nd\n", 80, rows).len() <= rows);
        }
        assert_eq!(fit("a\nb\n", &[], 80, 2), ["a", "b"]);
    }
}
