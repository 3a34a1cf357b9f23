//! Rate limits of vifs (tools/libs/util/libxlu_vif.c).

use std::fmt;

use super::SpecError;

const EXPECTED: &str = "a rate: a number with GB, MB, KB, B, Gb, Mb, Kb or b, `/s`, and perhaps `@` and an interval in s, \
                        ms or us, as in 10Mb/s or 1MB/s@20ms";

/// Default interval in microseconds.
const INTERVAL: u32 = 50_000;

/// Rate as netback reads it: `bytes,microseconds`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    bytes: u64,
    interval: u32,
}

impl Rate {
    pub(super) fn parse(text: &str) -> Result<Self, SpecError> {
        let read = || {
            let (rate, interval) = match text.split_once('@') {
                Some((rate, interval)) => (rate, parse_interval(interval)?),
                None => (text, INTERVAL),
            };
            let per_second = parse_bytes(rate)?;
            let bytes = per_second.checked_mul(u64::from(interval))? / 1_000_000;
            Some(Self { bytes, interval })
        };
        read().ok_or_else(|| SpecError::value("rate", text, EXPECTED))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.bytes, self.interval)
    }
}

/// Parses the bytes per second.
fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text.strip_suffix("/s")?)?;
    if number == 0 {
        return None;
    }
    let (factor, unit) = match unit.as_bytes() {
        [b'G', unit] => (1_000_000_000, *unit),
        [b'M', unit] => (1_000_000, *unit),
        [b'K', unit] => (1000, *unit),
        [unit] => (1, *unit),
        _ => return None,
    };
    let amount = u64::from(number).checked_mul(factor)?;
    match unit {
        b'B' => Some(amount),
        b'b' => Some(amount / 8),
        _ => None,
    }
}

/// Parses an interval to microseconds. A number alone is in seconds, unlike the manual says.
fn parse_interval(text: &str) -> Option<u32> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" | "s" => 1_000_000,
        "m" | "ms" => 1000,
        "u" | "us" => 1,
        _ => return None,
    };
    number.checked_mul(factor).filter(|interval| *interval > 0)
}

/// Splits a number from its unit.
fn split(text: &str) -> Option<(u32, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}
