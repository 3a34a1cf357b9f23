//! Process that holds a lock of the original scripts.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::TestHost;

/// Process that holds a lock, claimed by the original locking.sh.
#[derive(Debug)]
pub struct Locker {
    shell: Child,
    input: ChildStdin,
}

impl Locker {
    /// Claims a lock.
    pub fn claim(host: &TestHost, name: &str) -> Result<Self> {
        let locking = host.debian().script("locking.sh");
        let text = format!(
            "set -e; . {}; claim_lock {name}; echo claimed; read line; release_lock {name}",
            locking.display()
        );
        let mut shell = host
            .namespace()
            .command("bash")
            .args(["-c", &text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("bash")?;
        let input = shell.stdin.take().context("no input")?;
        let mut line = String::new();
        BufReader::new(shell.stdout.take().context("no output")?).read_line(&mut line)?;
        ensure!(line == "claimed\n", "locking.sh printed {line:?}");
        Ok(Self { shell, input })
    }

    /// Releases the lock.
    pub fn release(mut self) -> Result<()> {
        self.input.write_all(b"go\n")?;
        let status = self.shell.wait()?;
        ensure!(status.success(), "{status}");
        Ok(())
    }
}
