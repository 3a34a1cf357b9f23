//! The compiler of components: a process of its own, so that what a hostile component does to the compiler ends with it.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use xenplug_runtime::Engine;

/// Compiles one component from standard input to standard output.
pub(crate) fn run() -> ExitCode {
    match compile() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::FAILURE
        }
    }
}

fn compile() -> Result<(), String> {
    xenplug_system::confine_compiler().map_err(|error| error.to_string())?;
    let mut component = Vec::new();
    io::stdin()
        .read_to_end(&mut component)
        .map_err(|error| error.to_string())?;
    let code = Engine::compile(&component)?;
    io::stdout().write_all(&code).map_err(|error| error.to_string())
}
