//! Blocking client for one script call, without an executor.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Answer, Call};

/// Upper limit of an answer's size.
const ANSWER_MAX: u64 = 64 << 10;

/// Error of a script call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon does not run; it has not received the call.
    #[error("xenplugd does not answer on {socket}", socket = .socket.display())]
    Away {
        /// Path of the socket.
        socket: PathBuf,
        /// Error of the connection.
        source: io::Error,
    },
    /// The daemon closed the connection; the outcome of the call is unknown.
    #[error("xenplugd broke off")]
    BrokenOff(#[from] io::Error),
    /// The daemon may still carry out the call.
    #[error("xenplugd has not answered within {0:?}")]
    Late(Duration),
    /// The daemon refused the call, or is of another version.
    #[error("xenplugd answered {0}")]
    Refused(String),
}

/// Sends a call and waits for the answer, for `timeout` at most.
pub fn send(socket: &Path, call: &Call, timeout: Duration) -> Result<Answer, Error> {
    let deadline = Instant::now() + timeout;
    let stream = UnixStream::connect(socket).map_err(|source| Error::Away {
        socket: socket.to_owned(),
        source,
    })?;
    match exchange(stream, call, deadline) {
        // A read returns these when it times out.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(Error::Late(timeout))
        }
        received => parse(&received?),
    }
}

/// Returns everything that the daemon sends until it closes, which ends an HTTP/1.0 answer.
fn exchange(mut stream: UnixStream, call: &Call, deadline: Instant) -> io::Result<Vec<u8>> {
    let body = serde_json::to_string(call)?;
    stream.set_write_timeout(Some(remaining(deadline)?))?;
    stream.write_all(
        format!(
            "POST /script HTTP/1.0\r\nhost: xenplug\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )?;
    let mut received = Vec::new();
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(received),
            Ok(read) => received.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if received.len() as u64 > ANSWER_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has no end"));
        }
    }
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

fn parse(received: &[u8]) -> Result<Answer, Error> {
    let broken = |error: &str| Error::BrokenOff(io::Error::new(io::ErrorKind::UnexpectedEof, error));
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let body = match response.parse(received) {
        Ok(httparse::Status::Complete(head)) => &received[head..],
        Ok(httparse::Status::Partial) => return Err(broken("there is no answer")),
        Err(error) => return Err(Error::Refused(error.to_string())),
    };
    let (code, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or(""));
    if code != 200 {
        return Err(Error::Refused(format!(
            "{code} {reason}: {}",
            String::from_utf8_lossy(body)
        )));
    }
    serde_json::from_slice(body).map_err(|error| {
        if error.is_eof() {
            broken("the answer has no end")
        } else {
            Error::Refused(format!("what is not understood: {error}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, os::unix::net::UnixListener, thread};

    use super::*;
    use crate::script::ScriptAction;

    fn call() -> Call {
        Call {
            script: "block".into(),
            action: ScriptAction::Add,
            backend: "backend/vbd/3/51712".into(),
            emulated: false,
            parameters: BTreeMap::default(),
        }
    }

    /// Sends a call to a peer that reads it, answers in two parts, and closes or not.
    fn answered(parts: [&str; 2], closes: bool) -> Result<Answer, Error> {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("control.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        thread::scope(|scope| {
            let peer = scope.spawn(|| {
                let (mut stream, _) = listener.accept().expect("a caller");
                let mut request = Vec::new();
                while !request.ends_with(b"}") {
                    let mut byte = [0];
                    assert_eq!(stream.read(&mut byte).expect("more of the request"), 1);
                    request.push(byte[0]);
                }
                for part in parts {
                    // The client need not read all of a refusal.
                    let _ = stream.write_all(part.as_bytes());
                    thread::sleep(Duration::from_millis(5));
                }
                let left_open = (!closes).then_some(stream);
                (String::from_utf8(request).expect("text"), left_open)
            });
            let answer = send(
                &socket,
                &call(),
                Duration::from_millis(if closes { 20_000 } else { 50 }),
            );
            let (request, _) = peer.join().expect("a peer that does not panic");
            let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
            assert!(head.starts_with("POST /script HTTP/1.0\r\n"), "{head}");
            assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
            assert_eq!(serde_json::from_str::<Call>(body).expect("a call"), call());
            answer
        })
    }

    #[test]
    fn answer_is_parsed_in_any_number_of_parts() {
        let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
        let failed = Answer::Failed { error: "no".into() };
        for (parts, expected) in [
            ([head, r#"{"outcome":"done"}"#], Answer::Done),
            (
                ["HTTP/1.1 200 OK\r\n\r\n{\"outcome\":\"fai", "led\",\"error\":\"no\"}"],
                failed,
            ),
        ] {
            assert_eq!(answered(parts, true).expect("an answer"), expected);
        }
    }

    #[test]
    fn missing_broken_late_and_foreign_answers_are_told_apart() {
        let socket = Path::new("/nowhere/control.sock");
        assert!(matches!(
            send(socket, &call(), Duration::from_secs(1)),
            Err(Error::Away { .. })
        ));
        let begun = "HTTP/1.0 200 OK\r\n\r\n{\"outcome\":";
        assert!(matches!(answered(["", ""], true), Err(Error::BrokenOff(_))));
        assert!(matches!(answered(["HTTP/1.0 2", ""], true), Err(Error::BrokenOff(_))));
        assert!(matches!(answered([begun, ""], true), Err(Error::BrokenOff(_))));
        assert!(matches!(answered(["", ""], false), Err(Error::Late(_))));
        let endless = format!("HTTP/1.0 200 OK\r\n\r\n{}", " ".repeat(70_000));
        assert!(matches!(answered([&endless, ""], true), Err(Error::BrokenOff(_))));
        for other in [
            "HTTP/1.0 404 Not Found\r\n\r\n",
            "SSH-2.0-x\r\n",
            "HTTP/1.0 200 OK\r\n\r\n{\"outcome\":\"maybe\"}",
        ] {
            assert!(matches!(answered([other, ""], true), Err(Error::Refused(_))), "{other}");
        }
    }
}
