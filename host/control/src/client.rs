//! The client's side of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::Status;

/// Why the daemon did not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not run, or the socket is not its own.
    #[error("xenplugd does not answer on {socket}: {source}; is it running?", socket = .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What connecting to it said.
        source: io::Error,
    },
    /// It broke off.
    #[error("xenplugd broke off: {0}")]
    Http(#[from] hyper::Error),
    /// What is asked cannot be put into words.
    #[error("xenplugd cannot be asked that: {0}")]
    Question(#[from] hyper::http::Error),
    /// It refused.
    #[error("xenplugd answered {0}")]
    Refused(StatusCode),
    /// It is another version, perhaps.
    #[error("xenplugd's answer is not understood: {0}")]
    Answer(#[from] serde_json::Error),
}

/// Asks the daemon on its control socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client for this socket. Nothing is connected until something is asked.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    /// What the daemon is, and its devices.
    pub async fn status(&self) -> Result<Status, Error> {
        Ok(serde_json::from_slice(&self.ask("/status").await?)?)
    }

    /// Its metrics, as OpenMetrics text.
    pub async fn metrics(&self) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.ask("/metrics").await?).into_owned())
    }

    async fn ask(&self, path: &str) -> Result<Bytes, Error> {
        self.call(Method::GET, path).await
    }

    async fn call(&self, method: Method, path: &str) -> Result<Bytes, Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| Error::Unreachable {
                socket: self.socket.clone(),
                source,
            })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "xenplug")
            .body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        connection.abort();
        if status.is_success() {
            Ok(body)
        } else {
            Err(Error::Refused(status))
        }
    }
}
