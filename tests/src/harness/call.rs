//! Script calls to the daemon on its control socket, as a shim makes them: one call, one answer.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Device;

/// Time after which libxl kills a script (`LIBXL_HOTPLUG_TIMEOUT`).
const TIMEOUT: Duration = Duration::from_secs(40);

/// Answer of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `done`, `failed` or `not-served`.
    pub outcome: String,
    /// Cause of a failure.
    pub error: Option<String>,
}

impl Answer {
    /// Fails unless the outcome is `done`.
    pub fn done(&self) -> Result<()> {
        ensure!(self.outcome == "done" && self.error.is_none(), "{self:?}");
        Ok(())
    }

    /// Fails unless the answer has this outcome, with an error that contains all of these words.
    pub fn says(&self, outcome: &str, words: &[&str]) -> Result<()> {
        let error = self.error.as_deref().unwrap_or_default();
        ensure!(self.outcome == outcome, "{self:?} and not {outcome}");
        match words.iter().find(|word| !error.contains(**word)) {
            Some(word) => Err(anyhow::anyhow!("{error:?} does not contain {word:?}")),
            None => Ok(()),
        }
    }
}

/// Pending call. Dropping it closes the connection, as when the script is killed.
#[derive(Debug)]
pub struct Call(UnixStream);

impl Call {
    /// Makes a call about a device of the standard configuration, `add` or `remove`.
    pub fn about(device: &Device, action: &str, socket: &Path) -> Result<Self> {
        let script = device.kind.script();
        // libxl passes a path relative to its own domain.
        let backend = format!("backend/{}/{}/{}", device.kind, device.frontend, device.devid);
        let call = json!({ "script": script, "action": action, "backend": backend });
        Self::with(&call.to_string(), socket)
    }

    /// Makes a call with an arbitrary body.
    pub fn with(body: &str, socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "POST /script HTTP/1.1\r\nHost: xenplug\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(Self(stream))
    }

    /// Waits for the answer. Fails if the connection breaks.
    pub fn answer(self) -> Result<Answer> {
        let (status, body) = self.reply()?;
        ensure!(status == 200, "HTTP {status}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        Ok(Answer {
            outcome: answer["outcome"].as_str().context("no outcome")?.to_owned(),
            error: answer["error"].as_str().map(str::to_owned),
        })
    }

    /// Waits for the HTTP status and body of any reply.
    pub fn reply(mut self) -> Result<(u16, String)> {
        let mut reply = String::new();
        self.0.read_to_string(&mut reply).context("no answer")?;
        let (head, body) = reply
            .split_once("\r\n\r\n")
            .with_context(|| format!("the connection broke after {reply:?}"))?;
        let status = head.split(' ').nth(1).context("no status")?;
        Ok((status.parse()?, body.to_owned()))
    }
}
