//! What a journal survives.
