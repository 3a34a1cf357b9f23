//! Program of the floor [`xenplug_tests::floor`], on the store at `XENSTORED_PATH`. It prints `ready` once it serves.
#![allow(clippy::print_stdout, reason = "the program prints that it is ready")]

use std::{env, path::Path};

use anyhow::{Context, Result};
use xenplug_tests::{floor, store::Store};

fn main() -> Result<()> {
    let socket = env::var_os("XENSTORED_PATH").context("XENSTORED_PATH is not set")?;
    floor::serve(Store::connect(Path::new(&socket))?, || println!("ready"))
}
