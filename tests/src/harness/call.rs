//! Calls the daemon on its control socket as a hotplug script's stand-in does: one call, one answer.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Device;

/// When libxl kills a script (`LIBXL_HOTPLUG_TIMEOUT`).
const PATIENCE: Duration = Duration::from_secs(40);

/// What the daemon answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `done`, `failed` or `not-served`.
    pub outcome: String,
    /// Why.
    pub error: Option<String>,
}

impl Answer {
    /// Fails unless it is done.
    pub fn done(&self) -> Result<()> {
        ensure!(self.outcome == "done" && self.error.is_none(), "{self:?}");
        Ok(())
    }

    /// Fails unless it has this outcome, with an error that says all of these.
    pub fn says(&self, outcome: &str, words: &[&str]) -> Result<()> {
        let error = self.error.as_deref().unwrap_or_default();
        ensure!(self.outcome == outcome, "{self:?} and not {outcome}");
        match words.iter().find(|word| !error.contains(**word)) {
            Some(word) => Err(anyhow::anyhow!("{error:?} does not say {word:?}")),
            None => Ok(()),
        }
    }
}

/// A call under way. Dropped, the connection is closed, as when the script is killed.
#[derive(Debug)]
pub struct Call(UnixStream);

impl Call {
    /// Makes a call about a device of the standard configuration, `add` or `remove`.
    pub fn about(device: &Device, action: &str, socket: &Path) -> Result<Self> {
        let script = device.kind.script();
        // As libxl has it: relative to its own domain.
        let backend = format!("backend/{}/{}/{}", device.kind, device.frontend, device.devid);
        let call = json!({ "script": script, "action": action, "backend": backend });
        Self::with(&call.to_string(), socket)
    }

    /// Makes a call with any body.
    pub fn with(body: &str, socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "POST /script HTTP/1.1\r\nHost: xenplug\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(Self(stream))
    }

    /// Waits for the answer. A connection that breaks is an error.
    pub fn answer(self) -> Result<Answer> {
        let (status, body) = self.reply()?;
        ensure!(status == 200, "HTTP {status}: {body}");
        let answer: Value = serde_json::from_str(&body)?;
        Ok(Answer {
            outcome: answer["outcome"].as_str().context("no outcome")?.to_owned(),
            error: answer["error"].as_str().map(str::to_owned),
        })
    }

    /// Waits for the status and body of whatever comes.
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
