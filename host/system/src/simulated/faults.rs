//! Calls that are made to fail.

use std::collections::BTreeMap;

use crate::Error;

/// A call of one of the traits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "each is the method of that name")]
pub enum Operation {
    Open,
    UsedBy,
    AttachLoop,
    AdoptLoop,
    FindLoops,
    DetachLoop,
    Link,
    LinkByIndex,
    Bridge,
    Change,
    AddAddress,
    RemoveAddress,
    AddRoute,
    RemoveRoute,
    SetProxyArp,
    AddressOf,
    Appearances,
    Restrict,
    Lift,
    Run,
    RunRecorded,
    Start,
    Hooks,
    Enter,
    Strike,
    End,
    Find,
}

/// How often each was called, and which calls are still to fail.
#[derive(Debug, Default)]
pub(super) struct Faults {
    calls: BTreeMap<Operation, usize>,
    planned: BTreeMap<(Operation, usize), Error>,
}

impl Faults {
    pub(super) fn add(&mut self, operation: Operation, nth: usize, error: Error) {
        self.planned.insert((operation, self.calls(operation) + nth), error);
    }

    pub(super) fn calls(&self, operation: Operation) -> usize {
        self.calls.get(&operation).copied().unwrap_or_default()
    }

    pub(super) fn call(&mut self, operation: Operation) -> Result<(), Error> {
        let calls = self.calls.entry(operation).or_default();
        *calls += 1;
        match self.planned.remove(&(operation, *calls)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
