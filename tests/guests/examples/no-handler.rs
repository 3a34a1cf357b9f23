//! Exports nothing, and is no handler.
