//! Injection of errors into calls.

use std::{collections::BTreeMap, fmt};

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
    End,
    Find,
}

/// Decides which calls fail.
pub trait FaultInjector: Send {
    /// Runs before each call. The call has no effect if this returns an error or unwinds.
    fn call(&mut self, operation: Operation) -> Result<(), Error>;
}

/// Number of calls of each operation, and errors still to inject.
#[derive(Default)]
pub(super) struct Faults {
    calls: BTreeMap<Operation, usize>,
    planned: BTreeMap<(Operation, usize), Error>,
    injector: Option<Box<dyn FaultInjector>>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Faults");
        all.field("calls", &self.calls).field("planned", &self.planned);
        all.finish_non_exhaustive()
    }
}

impl Faults {
    pub(super) fn add(&mut self, operation: Operation, nth: usize, error: Error) {
        self.planned.insert((operation, self.calls(operation) + nth), error);
    }

    pub(super) fn set_injector(&mut self, injector: Box<dyn FaultInjector>) {
        self.injector = Some(injector);
    }

    pub(super) fn calls(&self, operation: Operation) -> usize {
        self.calls.get(&operation).copied().unwrap_or_default()
    }

    pub(super) fn call(&mut self, operation: Operation) -> Result<(), Error> {
        let calls = self.calls.entry(operation).or_default();
        *calls += 1;
        match self.planned.remove(&(operation, *calls)) {
            Some(error) => Err(error),
            None => self
                .injector
                .as_mut()
                .map_or(Ok(()), |injector| injector.call(operation)),
        }
    }
}
