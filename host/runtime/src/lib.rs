//! Runs handlers as WebAssembly components, with granted capabilities alone.
