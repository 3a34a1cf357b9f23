//! Calls of helpers, and undo commands for their effects.

use std::fmt;

use crate::{
    Error,
    process::{self, HelperProcess, Output},
};

/// A call of a helper that the operator granted: `Command::of("iscsiadm").args(["-m", "session"]).run()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    helper: String,
    arguments: Vec<String>,
}

/// Undo command for a helper's effect. The daemon runs it when the device goes or the handler fails.
///
/// It may run although the helper never ran, and more than once. It has to succeed then, or its exit code for "nothing
/// to undo" has to be [`settled`](Self::settled_by).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo(process::Undo);

impl Command {
    /// Makes a call without arguments. `helper` is the helper's name in the operator's configuration.
    pub fn of(helper: &str) -> Self {
        Self {
            helper: helper.into(),
            arguments: Vec::new(),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Runs the helper to its end. Its exit code is no error.
    pub fn run(&self) -> Result<Output, Error> {
        process::run(&self.helper, &self.arguments)
    }

    /// Runs the helper to its end. The daemon runs `undo` when the device goes or the handler fails.
    pub fn apply(&self, undo: Undo) -> Result<Output, Error> {
        process::apply(&self.helper, &self.arguments, &undo.0)
    }

    /// Joins the running helper that serves all devices of this guest, as one QEMU serves all its disks. Starts it if
    /// there is none.
    pub fn join(&self) -> Result<HelperProcess, Error> {
        HelperProcess::join(&self.helper, &self.arguments)
    }

    /// Returns the standard output of a helper that ended with exit code 0, or an error with its first line of output.
    pub fn expect(&self, output: Result<Output, Error>) -> Result<String, Error> {
        let output = output?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let line_of_output = [&output.stderr, &output.stdout]
            .into_iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .find(|line| !line.is_empty());
        Err(Error::Unavailable(format!(
            "{} failed: {}",
            self,
            line_of_output.map_or_else(|| format!("exit code {}", output.code), str::to_owned),
        )))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.helper)?;
        self.arguments.iter().try_for_each(|argument| write!(f, " {argument}"))
    }
}

impl Undo {
    /// Makes an undo command, which runs if the helper ended with exit code 0. Another code means that it had no
    /// effect.
    pub fn by(command: Command) -> Self {
        Self(process::Undo {
            helper: command.helper,
            arguments: command.arguments,
            settled: Vec::new(),
            after_failure: false,
        })
    }

    /// Adds an exit code that means that nothing is left to undo.
    #[must_use]
    pub fn settled_by(mut self, code: u32) -> Self {
        self.0.settled.push(code);
        self
    }

    /// Runs the undo command whatever the exit code of the helper, which may have had a partial effect.
    #[must_use]
    pub fn after_failure(mut self) -> Self {
        self.0.after_failure = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: u32, stdout: &str, stderr: &str) -> Result<Output, Error> {
        Ok(Output {
            code,
            stdout: stdout.into(),
            stderr: stderr.into(),
        })
    }

    #[test]
    fn failed_command_is_reported_with_arguments_and_output() {
        let command = Command::of("iscsiadm").args(["-m", "node"]).arg("--login");
        assert_eq!(command.expect(ended(0, "out\n", "warning")), Ok("out\n".into()));
        for (stdout, stderr, line_of_output) in [
            ("", "", "exit code 8"),
            ("a\nb\n", "", "a"),
            ("a\n", "\n  no route\nmore\n", "no route"),
        ] {
            assert_eq!(
                command.expect(ended(8, stdout, stderr)),
                Err(Error::Unavailable(format!(
                    "iscsiadm -m node --login failed: {line_of_output}"
                )))
            );
        }
        let denied = Error::Denied("no".into());
        assert_eq!(command.expect(Err(denied.clone())), Err(denied));
    }

    #[test]
    fn undo_has_its_conditions_and_settled_codes() {
        let undo = Undo::by(Command::of("ovs-vsctl").args(["del-port", "vif1.0"]));
        assert_eq!((undo.0.after_failure, &*undo.0.settled), (false, &[][..]));
        let undo = undo.settled_by(21).settled_by(2).after_failure();
        assert_eq!((undo.0.after_failure, &*undo.0.settled), (true, &[21, 2][..]));
    }
}
