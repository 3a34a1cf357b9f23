//! Running helpers, and having what they did undone.

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

/// Undoing of a helper's effect by another call, which the daemon makes when the device goes or the handler fails.
///
/// It may be run although the helper never was, and more than once: it has to bear that, or its exit code for "there is
/// nothing to undo" has to be [`settled`](Self::settled_by).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo(process::Undo);

impl Command {
    /// A call without arguments. `helper` is the name that it has in the operator's configuration.
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

    /// Runs it to its end, however it ends.
    pub fn run(&self) -> Result<Output, Error> {
        process::run(&self.helper, &self.arguments)
    }

    /// Runs it to its end, and has what it did undone when the device goes or the handler fails, however it ends.
    pub fn apply(&self, undo: Undo) -> Result<Output, Error> {
        process::apply(&self.helper, &self.arguments, &undo.0)
    }

    /// Takes part in the one that serves all devices of this guest, as one QEMU serves all its disks; starts it if there is
    /// none.
    pub fn join(&self) -> Result<HelperProcess, Error> {
        HelperProcess::join(&self.helper, &self.arguments)
    }

    /// Standard output of a helper that ended with exit code 0.
    pub fn expect(&self, output: Result<Output, Error>) -> Result<String, Error> {
        let output = output?;
        if output.code == 0 {
            return Ok(output.stdout);
        }
        let said = [&output.stderr, &output.stdout]
            .into_iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .find(|line| !line.is_empty());
        Err(Error::Unavailable(format!(
            "{} failed: {}",
            self,
            said.map_or_else(|| format!("exit code {}", output.code), str::to_owned),
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
    /// Undoes by this call, if what it undoes ended with exit code 0: another code says that nothing was done.
    pub fn by(command: Command) -> Self {
        Self(process::Undo {
            helper: command.helper,
            arguments: command.arguments,
            settled: Vec::new(),
            after_failure: false,
        })
    }

    /// Adds an exit code of it that says that there is nothing left to undo.
    #[must_use]
    pub fn settled_by(mut self, code: u32) -> Self {
        self.0.settled.push(code);
        self
    }

    /// It is run whatever the exit code of what it undoes: that may have done a part of its work.
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
        for (stdout, stderr, said) in [
            ("", "", "exit code 8"),
            ("a\nb\n", "", "a"),
            ("a\n", "\n  no route\nmore\n", "no route"),
        ] {
            assert_eq!(
                command.expect(ended(8, stdout, stderr)),
                Err(Error::Unavailable(format!("iscsiadm -m node --login failed: {said}")))
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
