//! One call from a script's stand-in, which waits for the answer and has no runtime.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Answer, Call};

/// More than any answer has.
const ANSWER_MAX: u64 = 64 << 10;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nobody was asked
    #[error("xenplugd does not answer on {socket}: {source}", socket = .socket.display())]
    Away {
        /// The socket.
        socket: PathBuf,
        /// What connecting to it said.
        source: io::Error,
    },
    /// it is not known what became of the call
    #[error("xenplugd broke off: {0}")]
    BrokenOff(#[from] io::Error),
    /// it is not known what will become of the call
    #[error("xenplugd has not answered within {0:?}")]
    Late(Duration),
    /// the daemon refused the call, or is another version
    #[error("xenplugd answered {0}")]
    Refused(String),
}

/// Asks the daemon, and waits for its answer, but not for longer than `timeout`.
pub fn send(socket: &Path, call: &Call, timeout: Duration) -> Result<Answer, Error> {
    let until = Instant::now() + timeout;
    let stream = UnixStream::connect(socket).map_err(|source| Error::Away {
        socket: socket.to_owned(),
        source,
    })?;
    match exchange(stream, call, until) {
        // What a read says when its time is up.
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(Error::Late(timeout))
        }
        said => understand(&said?),
    }
}

/// All that is said to the call, until the other side closes: with HTTP/1.0 that is the answer's end.
fn exchange(mut stream: UnixStream, call: &Call, until: Instant) -> io::Result<Vec<u8>> {
    let body = serde_json::to_string(call)?;
    stream.set_write_timeout(Some(left(until)?))?;
    stream.write_all(
        format!(
            "POST /script HTTP/1.0\r\nhost: xenplug\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )?;
    let mut said = Vec::new();
    loop {
        stream.set_read_timeout(Some(left(until)?))?;
        let mut bytes = [0; 4096];
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(said),
            Ok(read) => said.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if said.len() as u64 > ANSWER_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has no end"));
        }
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    match until.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

fn understand(said: &[u8]) -> Result<Answer, Error> {
    let broken = |error: &str| Error::BrokenOff(io::Error::new(io::ErrorKind::UnexpectedEof, error));
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let body = match response.parse(said) {
        Ok(httparse::Status::Complete(head)) => &said[head..],
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

    /// Asks a peer that reads the request, says this in two parts, and closes if it is to.
    fn asked(parts: [&str; 2], closes: bool) -> Result<Answer, Error> {
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
                    // Who refuses need not be heard to the end.
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
    fn an_answer_is_understood_in_however_many_parts_it_comes() {
        let head = "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n";
        let failed = Answer::Failed { error: "no".into() };
        for (parts, expected) in [
            ([head, r#"{"outcome":"done"}"#], Answer::Done),
            (
                ["HTTP/1.1 200 OK\r\n\r\n{\"outcome\":\"fai", "led\",\"error\":\"no\"}"],
                failed,
            ),
        ] {
            assert_eq!(asked(parts, true).expect("an answer"), expected);
        }
    }

    #[test]
    fn no_answer_is_told_from_one_that_breaks_off_comes_late_or_is_another() {
        let socket = Path::new("/nowhere/control.sock");
        assert!(matches!(
            send(socket, &call(), Duration::from_secs(1)),
            Err(Error::Away { .. })
        ));
        let begun = "HTTP/1.0 200 OK\r\n\r\n{\"outcome\":";
        assert!(matches!(asked(["", ""], true), Err(Error::BrokenOff(_))));
        assert!(matches!(asked(["HTTP/1.0 2", ""], true), Err(Error::BrokenOff(_))));
        assert!(matches!(asked([begun, ""], true), Err(Error::BrokenOff(_))));
        assert!(matches!(asked(["", ""], false), Err(Error::Late(_))));
        let endless = format!("HTTP/1.0 200 OK\r\n\r\n{}", " ".repeat(70_000));
        assert!(matches!(asked([&endless, ""], true), Err(Error::BrokenOff(_))));
        for other in [
            "HTTP/1.0 404 Not Found\r\n\r\n",
            "SSH-2.0-x\r\n",
            "HTTP/1.0 200 OK\r\n\r\n{\"outcome\":\"maybe\"}",
        ] {
            assert!(matches!(asked([other, ""], true), Err(Error::Refused(_))), "{other}");
        }
    }
}
