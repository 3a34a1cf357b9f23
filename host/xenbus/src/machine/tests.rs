//! The machine, step by step and exhaustively.
