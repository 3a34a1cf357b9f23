//! What tap-ctl answers.

use xenplug_sdk::Error;

/// The number in what `tap-ctl allocate` answers: a number, a path that ends in it (`/run/blktap-control/tapdisk/tapdisk-3`),
/// or the device of the old kernel module (`/dev/xen/blktap-2/tapdev3`).
pub(crate) fn minor(answer: &str) -> Result<&str, Error> {
    let answer = answer.trim();
    let digits = answer.bytes().rev().take_while(u8::is_ascii_digit).count();
    Some(&answer[answer.len() - digits..])
        .filter(|number| !number.is_empty())
        .ok_or_else(|| Error::Other(format!("tap-ctl allocate answers `{answer}`, without a number")))
}

/// The process in what `tap-ctl spawn` answers.
pub(crate) fn pid(answer: &str) -> Result<&str, Error> {
    Some(answer.trim())
        .filter(|pid| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| {
            Error::Other(format!(
                "tap-ctl spawn answers `{}`, which is no process",
                answer.trim()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tap_ctl_answers_is_read_in_each_of_its_forms() {
        for (answer, number) in [
            ("3\n", "3"),
            ("/run/blktap-control/tapdisk/tapdisk-12\n", "12"),
            ("/dev/xen/blktap-2/tapdev0", "0"),
        ] {
            assert_eq!(minor(answer), Ok(number));
        }
        assert!(minor("").is_err() && minor("tapdev").is_err());
        assert_eq!(pid("1234\n"), Ok("1234"));
        assert!(pid("").is_err() && pid("-1").is_err() && pid("a1").is_err());
    }
}
