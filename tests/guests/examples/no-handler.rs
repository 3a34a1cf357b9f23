//! Exports nothing: not a handler at all.
