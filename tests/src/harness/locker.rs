//! Somebody who has a lock of the original scripts.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::TestHost;

/// Somebody who has a lock of locking.sh, by that file itself.
#[derive(Debug)]
pub struct Locker {
    shell: Child,
    input: ChildStdin,
}

impl Locker {
    /// Claims it.
    pub fn claim(machine: &TestHost, name: &str) -> Result<Self> {
        let locking = machine.debian().script("locking.sh");
        let text = format!(
            "set -e; . {}; claim_lock {name}; echo claimed; read line; release_lock {name}",
            locking.display()
        );
        let mut shell = machine
            .namespace()
            .command("bash")
            .args(["-c", &text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("bash")?;
        let input = shell.stdin.take().context("no input")?;
        let mut said = String::new();
        BufReader::new(shell.stdout.take().context("no output")?).read_line(&mut said)?;
        ensure!(said == "claimed\n", "locking.sh says {said:?}");
        Ok(Self { shell, input })
    }

    /// Releases it.
    pub fn release(mut self) -> Result<()> {
        self.input.write_all(b"go\n")?;
        let status = self.shell.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}
