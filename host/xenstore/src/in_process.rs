//! Endpoint of a store in the same process: tests and simulations connect to it without a socket.

use std::{fmt, io, sync::Arc};

use tokio::io::DuplexStream;

/// Store in the same process. Each connection is one [`DuplexStream`] of at least
/// [`STREAM_CAPACITY`](crate::protocol::STREAM_CAPACITY) bytes, since the client never waits for space in it.
#[derive(Clone)]
pub struct InProcess(Arc<dyn Fn() -> io::Result<DuplexStream> + Send + Sync>);

impl InProcess {
    /// Creates an endpoint whose connections `connect` makes.
    pub fn new(connect: impl Fn() -> io::Result<DuplexStream> + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }

    pub(crate) fn connect(&self) -> io::Result<DuplexStream> {
        (self.0)()
    }
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a store in this process")
    }
}

impl PartialEq for InProcess {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for InProcess {}
