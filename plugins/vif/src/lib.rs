//! What the handlers of network cards share: the nodes that each of them reads, and what a guest may send.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod card;
pub mod sources;

pub use card::Card;
