//! Commands of the README, which tests run and scenarios on real Xen begin with.

use anyhow::{Result, ensure};

/// Command of the README.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// Heading above the command, without its `#`s.
    pub section: &'a str,
    /// Text of the command.
    pub line: &'a str,
}

/// Returns the commands in the README's shell blocks, in their order.
pub fn commands(readme: &str) -> Result<Vec<Command<'_>>> {
    let mut commands = Vec::new();
    let mut block = None;
    let mut section = "";
    for line in readme.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(kind), None) => block = Some(kind),
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) if !line.is_empty() && !line.starts_with('#') => {
                ensure!(!line.ends_with('\\'), "a command over several lines: {line}");
                commands.push(Command { section, line });
            }
            (None, Some(kind)) => ensure!(["sh", "text", "toml"].contains(&kind), "a block of {kind:?}"),
            (None, None) if line.starts_with('#') => section = line.trim_start_matches('#').trim(),
            (None, None) => {}
        }
    }
    ensure!(block.is_none(), "a block without end");
    Ok(commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readme_shell_blocks_yield_commands_with_headings() -> Result<()> {
        let text = "a\n## One\n```sh\ncargo xtask demo\n\n# no\nrm -r x\n```\n# Two\n```text\nno\n```\n```sh\nb\n```\n";
        let found = commands(text)?;
        let found: Vec<_> = found.iter().map(|command| (command.section, command.line)).collect();
        assert_eq!(found, [("One", "cargo xtask demo"), ("One", "rm -r x"), ("Two", "b")]);
        ensure!(commands("```console\nx\n```").is_err() && commands("```sh\nx").is_err());
        ensure!(commands("```sh\nx \\\ny\n```").is_err());
        Ok(())
    }
}
