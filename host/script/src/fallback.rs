//! Decision after the daemon's answer, or without one.

use xenplug_control::{
    Fallback, error_chain,
    script::{Answer, Error, ScriptAction},
};

/// Next step of the shim.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Succeed.
    Done,
    /// Run the saved original.
    Original,
    /// Fail; the daemon has written the error to the store.
    Failed(String),
    /// Fail; the daemon has not written the error to the store.
    FailedUnwritten(String),
}

/// Decides by the operator's fallback and whether an original is saved.
///
/// The original runs only for a device that the daemon certainly does not serve, since two programs that set up the same
/// device would each leave resources behind. If the daemon broke off, the next one may continue.
pub(crate) fn of(
    action: ScriptAction,
    answer: Result<Answer, Error>,
    fallback: Fallback,
    has_original: bool,
) -> Outcome {
    let chosen = fallback == Fallback::Original;
    let (error, original) = match answer {
        Ok(Answer::Done) => return Outcome::Done,
        Ok(Answer::Failed { error }) => return Outcome::Failed(error),
        // Only the original can remove a device that the original has set up.
        Ok(Answer::NotServed { error }) => (error, chosen || action == ScriptAction::Remove),
        Err(error @ Error::Away { .. }) => (error_chain(&error), chosen),
        Err(error) => (error_chain(&error), false),
    };
    match (original, has_original) {
        (true, true) => Outcome::Original,
        (true, false) => Outcome::FailedUnwritten(format!("{error}; and there is no original script")),
        (false, _) => Outcome::FailedUnwritten(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use super::*;

    /// Behaviour of the daemon.
    #[derive(Clone, Copy, Debug)]
    enum Daemon {
        Done,
        Failed,
        NotServed,
        Away,
        BrokenOff,
        Late,
        Refused,
    }

    fn answer(daemon: Daemon) -> Result<Answer, Error> {
        let error = "why".to_owned();
        match daemon {
            Daemon::Done => Ok(Answer::Done),
            Daemon::Failed => Ok(Answer::Failed { error }),
            Daemon::NotServed => Ok(Answer::NotServed { error }),
            Daemon::Away => Err(Error::Away {
                socket: "/s".into(),
                source: io::ErrorKind::ConnectionRefused.into(),
            }),
            Daemon::BrokenOff => Err(Error::BrokenOff(io::ErrorKind::ConnectionReset.into())),
            Daemon::Late => Err(Error::Late(Duration::from_secs(36))),
            Daemon::Refused => Err(Error::Refused("404".into())),
        }
    }

    /// Returns the outcome's first letter, capital if the shim has to write the error.
    fn letter(outcome: &Outcome) -> char {
        match outcome {
            Outcome::Done => 'd',
            Outcome::Original => 'o',
            Outcome::Failed(_) => 'f',
            Outcome::FailedUnwritten(_) => 'F',
        }
    }

    #[test]
    fn original_runs_only_for_devices_the_daemon_does_not_serve() {
        let (add, remove) = (ScriptAction::Add, ScriptAction::Remove);
        // With fallback "fail", and with "original".
        for (daemon, action, expected) in [
            (Daemon::Done, add, "dd"),
            (Daemon::Done, remove, "dd"),
            (Daemon::Failed, add, "ff"),
            (Daemon::Failed, remove, "ff"),
            (Daemon::NotServed, add, "Fo"),
            (Daemon::NotServed, remove, "oo"),
            (Daemon::Away, add, "Fo"),
            (Daemon::Away, remove, "Fo"),
            (Daemon::BrokenOff, add, "FF"),
            (Daemon::BrokenOff, remove, "FF"),
            (Daemon::Late, add, "FF"),
            (Daemon::Late, remove, "FF"),
            (Daemon::Refused, add, "FF"),
            (Daemon::Refused, remove, "FF"),
        ] {
            for (fallback, expected) in [Fallback::Fail, Fallback::Original].into_iter().zip(expected.chars()) {
                let outcome = of(action, answer(daemon), fallback, true);
                assert_eq!(letter(&outcome), expected, "{daemon:?} {action:?} {fallback:?}");
                let without = of(action, answer(daemon), fallback, false);
                let expected = if expected == 'o' { 'F' } else { expected };
                assert_eq!(
                    letter(&without),
                    expected,
                    "{daemon:?} {action:?} {fallback:?}, none saved"
                );
            }
        }
    }
}
