//! The terminal that a picture is shown on, which is as it was afterwards.

use std::io::{self, IsTerminal, Stdout, Write};

use crossterm::{
    cursor::{Hide, MoveTo, Show},
    execute, queue,
    style::Print,
    terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, size},
};

/// A screen of its own on the terminal, without a cursor. Dropped, the terminal shows what it showed before.
pub(super) struct Screen(Stdout);

impl Screen {
    /// Takes the terminal, if the output is one.
    pub(super) fn take() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() {
            return Ok(None);
        }
        let mut screen = Self(io::stdout());
        execute!(screen.0, EnterAlternateScreen, Hide)?;
        Ok(Some(screen))
    }

    /// Shows a table, and below it what was last told. Line by line over what stands there: nothing flickers.
    pub(super) fn show(&mut self, table: &str, told: &[String]) -> io::Result<()> {
        let (columns, rows) = size()?;
        let lines = fit(table, told, usize::from(columns), usize::from(rows));
        for (row, line) in (0..).zip(&lines) {
            queue!(self.0, MoveTo(0, row), Print(line), Clear(ClearType::UntilNewLine))?;
        }
        // The last line stays as it is if all are taken.
        if lines.len() < usize::from(rows) {
            queue!(self.0, Print("\r\n"), Clear(ClearType::FromCursorDown))?;
        }
        self.0.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing.
        let _ = execute!(self.0, Show, LeaveAlternateScreen);
    }
}

/// What of it fits: the table has half of the screen at least, and says how much of it is not shown.
fn fit(table: &str, told: &[String], columns: usize, rows: usize) -> Vec<String> {
    let table: Vec<&str> = table.lines().collect();
    let for_told = (rows / 2).max(rows.saturating_sub(table.len())).saturating_sub(1);
    let told = &told[told.len().saturating_sub(for_told)..];
    let for_table = rows.saturating_sub(if told.is_empty() { 0 } else { told.len() + 1 });
    let mut lines: Vec<String> = table.iter().map(|line| (*line).to_owned()).collect();
    if table.len() > for_table {
        lines.truncate(for_table.saturating_sub(1));
        lines.push(format!("… {} lines more", table.len() - lines.len()));
    }
    if !told.is_empty() {
        lines.push(String::new());
        lines.extend(told.iter().cloned());
    }
    lines.truncate(rows);
    lines.iter().map(|line| line.chars().take(columns).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_cut_and_told() {
        let told = ["one", "two", "three"].map(str::to_owned);
        let shown = |table: &str, columns, rows| fit(table, &told, columns, rows);
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
