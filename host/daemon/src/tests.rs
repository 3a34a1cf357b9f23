//! Tests of the whole daemon.

pub(crate) mod simulation;
