//! Phases of a device's life.

/// Phase of a device's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// The device was not read yet, or is forgotten.
    Absent,
    /// The device exists and may not be connected yet.
    Waiting,
    /// The plugin's handler runs.
    Connecting {
        /// The handler was asked to stop. The resources that it acquired are released when it ends.
        stopping: bool,
    },
    /// The connection is being published.
    Publishing,
    /// The device is connected and its resources are held.
    Connected,
    /// The connection is being withdrawn, with its resources still held.
    Withdrawing,
    /// Somebody else has connected the device; the daemon holds nothing for it.
    Foreign,
    /// The resources are being released.
    Releasing {
        /// The next step.
        then: AfterRelease,
    },
    /// A resource could not be released; the next event retries.
    ReleaseFailed {
        /// The step after a release that succeeds.
        then: AfterRelease,
    },
    /// Nothing is held and the directory still exists.
    Released {
        /// `hotplug-status` is `disconnected`.
        published: bool,
    },
    /// The failure is being published.
    Failing,
    /// The device could not be connected and stays so.
    Failed {
        /// `hotplug-status` is `error` or `busy`.
        published: bool,
    },
    /// `disconnected` is being published.
    Disconnecting,
    /// The directory is being removed.
    Removing,
}

/// Step that follows a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AfterRelease {
    /// Read the state again, which decides.
    ReadState,
    /// Publish the failure.
    PublishFailure,
}

impl Phase {
    /// Tells whether resources may be held for the device.
    pub fn holds(self) -> bool {
        use Phase::{Connected, Connecting, Publishing, ReleaseFailed, Releasing, Withdrawing};
        matches!(
            self,
            Connecting { .. } | Publishing | Connected | Withdrawing | Releasing { .. } | ReleaseFailed { .. }
        )
    }

    /// Tells whether an operation is in flight whose completion is expected.
    pub fn busy(self) -> bool {
        use Phase::{Connecting, Disconnecting, Failing, Publishing, Releasing, Removing, Withdrawing};
        matches!(
            self,
            Connecting { .. } | Publishing | Withdrawing | Releasing { .. } | Failing | Disconnecting | Removing
        )
    }

    /// Tells whether nothing is held and nothing has to be published, so that the journal's record may be removed.
    pub fn settled(self) -> bool {
        let unpublished = matches!(
            self,
            Self::Released { published: false } | Self::Failed { published: false }
        );
        !self.holds() && !self.busy() && !unpublished
    }

    /// Returns the phase's name as `xenplug status` shows it.
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
