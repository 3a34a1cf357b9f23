//! Tests of the client against the in-memory server.
