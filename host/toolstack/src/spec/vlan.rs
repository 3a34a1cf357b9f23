//! VLANs of a vif (docs/man/xl-network-configuration.5.pod.in).

use super::SpecError;

const EXPECTED: &str = "VLANs: numbers from 1 to 4094, ranges `1-4` and rows `100+10x4`, with `/` between, `p` behind the \
                        one for untagged frames of the guest and `u` behind untagged ones, as in 10p/20";

/// Returns the text if it is valid. A single VLAN is the PVID without `p`; otherwise exactly one must have it.
pub(super) fn checked(text: String) -> Result<String, SpecError> {
    let terms: Vec<&str> = text.split('/').collect();
    let pvids = terms.iter().filter(|term| term.ends_with('p')).count();
    let alone = terms.len() == 1 && id(terms[0].trim_end_matches(['p', 'u'])).is_some();
    let fits = terms.iter().all(|term| is_term(term)) && (pvids == 1 || (pvids == 0 && alone));
    if fits {
        Ok(text)
    } else {
        Err(SpecError::value("vlan", &text, EXPECTED))
    }
}

fn is_term(term: &str) -> bool {
    if let Some(one) = term.strip_suffix('p') {
        return id(one).is_some();
    }
    let term = term.strip_suffix('u').unwrap_or(term);
    if let Some((first, last)) = term.split_once('-') {
        return id(first).zip(id(last)).is_some_and(|(first, last)| first <= last);
    }
    if let Some((first, row)) = term.split_once('+') {
        let row = row
            .split_once('x')
            .and_then(|(by, count)| Some((number(by)?, number(count)?)));
        return id(first)
            .zip(row)
            .and_then(|(first, (by, count))| by.checked_mul(count)?.checked_add(first))
            .is_some_and(|last| last <= 4094);
    }
    id(term).is_some()
}

fn id(text: &str) -> Option<u32> {
    number(text).filter(|number| (1..=4094).contains(number))
}

fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}
