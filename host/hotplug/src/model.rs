//! A model of the protocol's world, explored exhaustively: a toolstack, a driver domain's daemon with its device's
//! machine and journal, the kernel's backend, and a guest.
//!
//! Both sides run exactly the functions of this crate. Each looks at one moment and acts at a later one, with anything
//! between, so that watch events may be lost, late or merged at will. Either may die at any moment and come back; so may
//! the guest, under the same domain id, and the driver domain as a whole. The explorer is our own and not `stateright`:
//! what has to be shown besides invariants is that from every state that can be reached the end can be, by steps that
//! need no luck, and that needs the whole graph.

mod act;
mod explore;
mod properties;
mod world;

/// A mistake in the protocol that the model has to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// The daemon says that a device is closed as soon as its backend has gone, while it is still being released.
    ClosedBeforeReleased,
    /// It forgets that its device's machine may be about to act on what it saw before the backend went.
    LookUnderWayIgnored,
    /// Its transactions do not look again.
    DaemonDoesNotLookAgain,
    /// The toolstack's do not.
    ToolstackDoesNotLookAgain,
    /// The toolstack removes what it does not want any more without waiting, as libxl does after ten seconds
    /// (tools/libs/light/libxl_device.c, `libxl__initiate_device_generic_remove`).
    ToolstackDoesNotWait,
    /// The toolstack withdraws a request that was taken up already.
    WithdrawnWhenTaken,
    /// The daemon waits for the guest also when it was told not to.
    ForceIgnored,
    /// A daemon that starts again knows nothing of what the last one held.
    NoJournal,
    /// The daemon does not ask the guest to let go.
    GuestNotAsked,
    /// The toolstack takes a request of the guest that had the domain id before for one of this guest.
    MachineIgnored,
    /// The daemon leaves the frontend's directory.
    FrontendLeft,
}

/// What the explored world is like.
#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    mistake: Option<Mistake>,
    /// Guests neither close their devices when they are asked to, nor die.
    stubborn: bool,
    /// The driver domain may be destroyed.
    mortal: bool,
    /// Nobody loses patience with a guest.
    patient: bool,
    /// Somebody removes requests by hand; nobody asks for anything after that.
    careless: bool,
}

impl Rules {
    fn has(self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }
}
