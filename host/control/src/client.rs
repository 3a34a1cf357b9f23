//! Asynchronous client of the control socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::Status;

/// Error of a request to the daemon.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon does not run, or listens on another socket.
    #[error("xenplugd does not answer on {socket}", socket = .socket.display())]
    Unreachable {
        /// Path of the socket.
        socket: PathBuf,
        /// Error of the connection.
        source: io::Error,
    },
    /// The daemon closed the connection before it answered.
    #[error("xenplugd broke off")]
    Http(#[from] hyper::Error),
    /// The request is not valid HTTP.
    #[error("invalid request")]
    Request(#[from] hyper::http::Error),
    /// The daemon refused the request.
    #[error("xenplugd answered {0}")]
    Refused(StatusCode),
    /// The answer is not of this version.
    #[error("xenplugd's answer is not understood")]
    Answer(#[from] serde_json::Error),
}

/// Client of the control socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// Makes a client, which connects once per request.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
        }
    }

    /// Returns the state of the daemon and its devices.
    pub async fn status(&self) -> Result<Status, Error> {
        Ok(serde_json::from_slice(&self.get("/status").await?)?)
    }

    /// Returns the metrics as OpenMetrics text.
    pub async fn metrics(&self) -> Result<String, Error> {
        Ok(String::from_utf8_lossy(&self.get("/metrics").await?).into_owned())
    }

    async fn get(&self, path: &str) -> Result<Bytes, Error> {
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
