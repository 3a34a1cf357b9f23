//! The phases of a device's life.

/// Where a device is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not seen yet, or forgotten.
    Absent,
    /// Seen, and not to be connected yet.
    Waiting,
    /// Its handler runs.
    Connecting {
        /// It was told to stop, as the device is lost; whatever it has done is to be undone.
        stopping: bool,
    },
    /// The connection is being published.
    Publishing,
    /// Connected, and what it needs is held.
    Connected,
    /// That it is connected is being taken back, while what it needs is still held.
    Withdrawing,
    /// Connected by somebody else; nothing of it is ours.
    Foreign,
    /// What it held is being given back.
    Releasing {
        /// What follows.
        then: AfterRelease,
    },
    /// Not everything could be given back; the next event tries again.
    ReleaseFailed {
        /// What follows.
        then: AfterRelease,
    },
    /// Nothing is held any more, and the directory is there still: it is for the toolstack to remove, or to be seen.
    Released {
        /// Whether the store says so.
        published: bool,
    },
    /// The failure is being published.
    Failing,
    /// It could not be connected, and stays so.
    Failed {
        /// Whether the store says so.
        published: bool,
    },
    /// The end is being published.
    Disconnecting,
    /// The directory is being removed.
    Removing,
}

/// What follows when everything is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterRelease {
    /// See what is there now.
    ReadState,
    /// Say why it failed.
    PublishFailure,
}

impl Phase {
    /// Whether something may be held for the device.
    pub fn holds(self) -> bool {
        use Phase::{Connected, Connecting, Publishing, ReleaseFailed, Releasing, Withdrawing};
        matches!(
            self,
            Connecting { .. } | Publishing | Connected | Withdrawing | Releasing { .. } | ReleaseFailed { .. }
        )
    }

    /// Whether an operation is in flight, whose completion is awaited.
    pub fn busy(self) -> bool {
        use Phase::{Connecting, Disconnecting, Failing, Publishing, Releasing, Removing, Withdrawing};
        matches!(
            self,
            Connecting { .. } | Publishing | Withdrawing | Releasing { .. } | Failing | Disconnecting | Removing
        )
    }

    /// Whether nothing is held, and nothing is left to be written about it: a journal's record has served.
    pub fn settled(self) -> bool {
        let untold = matches!(
            self,
            Self::Released { published: false } | Self::Failed { published: false }
        );
        !self.holds() && !self.busy() && !untold
    }

    /// One word for it, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Waiting => "waiting",
            Self::Connecting { .. } => "connecting",
            Self::Publishing => "publishing",
            Self::Connected => "connected",
            Self::Withdrawing => "withdrawing",
            Self::Foreign => "foreign",
            Self::Releasing { .. } => "releasing",
            Self::ReleaseFailed { .. } => "release-failed",
            Self::Released { .. } => "released",
            Self::Failing => "failing",
            Self::Failed { .. } => "failed",
            Self::Disconnecting => "disconnecting",
            Self::Removing => "removing",
        }
    }
}
