//! A model of the protocol's world, explored exhaustively: a toolstack, a driver domain's daemon with its device's
//! machine and journal, the kernel's backend, and a guest.
//!
//! Both sides run exactly the functions of this crate. Each takes its snapshot at one moment and acts at a later one, with
//! any other steps between, so watch events may be lost, late or merged. Either side may die at any moment and come back;
//! so may the guest, under the same domain id, and the driver domain as a whole. The explorer is our own and not
//! `stateright`: besides invariants it shows that the end is reachable from every reachable state by certain steps, which
//! needs the whole graph.

mod act;
mod explore;
mod properties;
mod world;

/// Mistake in the protocol that the model has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// The daemon writes closed as soon as the backend is gone, while resources are still held.
    ClosedBeforeReleased,
    /// The daemon ignores that the device's machine may act on a read from before the backend was removed.
    PendingReadIgnored,
    /// The daemon's transactions do not take the snapshot again.
    DaemonSkipsRecheck,
    /// The toolstack's transactions do not take the snapshot again.
    ToolstackSkipsRecheck,
    /// The toolstack removes a request without waiting, as libxl does after ten seconds
    /// (tools/libs/light/libxl_device.c, `libxl__initiate_device_generic_remove`).
    ToolstackDoesNotWait,
    /// The toolstack removes a request that was accepted already.
    AcceptedRequestRemoved,
    /// The daemon waits for the guest despite `force`.
    ForceIgnored,
    /// A restarted daemon does not know what its predecessor held.
    NoJournal,
    /// The daemon does not ask the guest to close the device.
    CloseNotRequested,
    /// The toolstack takes a request of the domain id's previous guest for one of this guest.
    VmIgnored,
    /// The daemon does not remove the frontend's directory.
    FrontendKept,
}

/// Variant of the explored world.
#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    mistake: Option<Mistake>,
    /// Guests neither close their devices nor die.
    stubborn: bool,
    /// The driver domain may be destroyed.
    mortal: bool,
    /// No detach is forced.
    patient: bool,
    /// An operator removes requests by hand; no operation follows.
    careless: bool,
}

impl Rules {
    fn has(self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
