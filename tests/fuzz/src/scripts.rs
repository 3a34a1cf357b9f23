//! Invocations of the shim, and its calls to the daemon.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use xenplug_control::script::{Call, is_parameter};

#[allow(dead_code, unreachable_pub, reason = "the program has more of it")]
#[path = "../../../host/script/src/invocation.rs"]
mod invocation;

use invocation::{Invocation, Run, Task};

/// Parses arguments and variables, each ended by a NUL; a variable has a `:` before its name.
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(call) = serde_json::from_slice::<Call>(bytes) {
        let text = serde_json::to_vec(&call).expect("a call serializes");
        let again: Call = serde_json::from_slice(&text).expect("a serialized call parses");
        assert_eq!(again, call);
    }
    let (mut arguments, mut environment) = (Vec::new(), Vec::new());
    for word in bytes.split(|byte| *byte == 0) {
        match word
            .strip_prefix(b":")
            .and_then(|word| Some((word, word.iter().position(|byte| *byte == b'=')?)))
        {
            Some((word, at)) => environment.push((word[..at].to_vec(), OsString::from_vec(word[at + 1..].to_vec()))),
            None => arguments.push(OsString::from_vec(word.to_vec())),
        }
    }
    let value = |name: &str| {
        let found = environment.iter().find(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| value.clone())
    };
    let given = arguments.clone();
    match Invocation::of(arguments.into_iter(), value) {
        Ok(Invocation::Run(Run {
            script,
            arguments,
            task,
        })) => {
            assert_eq!(script.as_os_str(), given[0], "the script has changed");
            assert_eq!(arguments, given[1..], "the original gets other arguments");
            if let Task::Call(call) = task {
                assert!(!call.script.contains('/'), "{call:?}");
                for (name, value) in &call.parameters {
                    assert!(
                        is_parameter(name, value),
                        "{name}={value:?} is sent, and refused by the daemon"
                    );
                }
                assert!(serde_json::to_vec(&call).is_ok());
            }
        }
        Ok(_) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
