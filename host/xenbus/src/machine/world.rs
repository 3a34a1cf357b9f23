//! A small world.
