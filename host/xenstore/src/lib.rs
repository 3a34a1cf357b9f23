//! The xenstore protocol: an asynchronous client, and an in-memory server.
