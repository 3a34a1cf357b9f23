//! What to do about the daemon's answer, or its silence.

use xenplug_control::{
    Fallback,
    script::{Answer, Error, ScriptAction},
};

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The device is as it is to be.
    Done,
    /// The saved original is to be run.
    Original,
    /// Fail. It is the daemon's to tell the store.
    Failed(String),
    /// Fail. The daemon has not told the store.
    Untold(String),
}

/// What to do, by the operator's choice and whether an original was saved.
///
/// The original runs only for a device that the daemon certainly has nothing to do with: two who set up the same device
/// would each leave half of it behind. When the daemon broke off in the middle, the next one may go on.
pub(crate) fn of(
    action: ScriptAction,
    heard: Result<Answer, Error>,
    fallback: Fallback,
    has_original: bool,
) -> Outcome {
    let chosen = fallback == Fallback::Original;
    let (error, original) = match heard {
        Ok(Answer::Done) => return Outcome::Done,
        Ok(Answer::Failed { error }) => return Outcome::Failed(error),
        // What the original has set up, before the stand-in came or in its place, only the original can take down.
        Ok(Answer::NotServed { error }) => (error, chosen || action == ScriptAction::Remove),
        Err(error @ Error::Away { .. }) => (error.to_string(), chosen),
        Err(error) => (error.to_string(), false),
    };
    match (original, has_original) {
        (true, true) => Outcome::Original,
        (true, false) => Outcome::Untold(format!("{error}; and there is no original script")),
        (false, _) => Outcome::Untold(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use super::*;

    /// What the daemon says or does.
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

    fn heard(daemon: Daemon) -> Result<Answer, Error> {
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

    /// By the fallback's first letter, capital where the store is to be told.
    fn letter(outcome: &Outcome) -> char {
        match outcome {
            Outcome::Done => 'd',
            Outcome::Original => 'o',
            Outcome::Failed(_) => 'f',
            Outcome::Untold(_) => 'F',
        }
    }

    #[test]
    fn the_original_runs_where_the_operator_chose_it_and_the_daemon_has_nothing_to_do_with_the_device() {
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
                let outcome = of(action, heard(daemon), fallback, true);
                assert_eq!(letter(&outcome), expected, "{daemon:?} {action:?} {fallback:?}");
                let without = of(action, heard(daemon), fallback, false);
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
