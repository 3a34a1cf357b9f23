//! The parameters of a seed.

use std::time::Duration;

use xenplug_xenbus::Mode;

use super::chance::Chance;

/// The parameters of a seed. Times are the longest, in milliseconds; probabilities are per thousand.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    /// True if the daemon may read the guests' `vm` nodes.
    pub(super) vm_readable: bool,
    /// Time of a message between daemon and store.
    pub(super) message: u64,
    /// Probabilities that an event is lost, or arrives twice.
    pub(super) lost: u64,
    pub(super) twice: u64,
    /// Time before a worker begins, and before its end is noticed.
    pub(super) worker: u64,
    /// Time of a step of a guest, of the kernel, or of the toolstack.
    pub(super) others: u64,
    /// Probabilities that a call of the host fails, and that the daemon is killed at one.
    pub(super) failing: u64,
    pub(super) killing: u64,
    /// Probability that a worker is stuck in the kernel after its work.
    pub(super) stuck: u64,
    /// Time between two misfortunes that need no cause; none if 0.
    pub(super) misfortune: u64,
    /// The number of guests of each domain id, one after the other.
    pub(super) lives: u64,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let chance = Chance::of(seed, "plan");
        let mut plan = Self {
            mode: chance.pick(&[Mode::DriverDomain, Mode::DriverDomain, Mode::Dom0]),
            vm_readable: chance.permille(500),
            message: chance.pick(&[0, 1, 5, 50, 500]),
            lost: chance.pick(&[0, 0, 0, 50, 300]),
            twice: chance.pick(&[0, 0, 100]),
            worker: chance.pick(&[0, 1, 20, 2000]),
            others: chance.pick(&[1, 10, 100, 1000]),
            failing: chance.pick(&[0, 0, 5, 50]),
            killing: chance.pick(&[0, 0, 5, 50]),
            stuck: chance.pick(&[0, 0, 0, 20]),
            misfortune: chance.pick(&[0, 1000, 10_000, 40_000]),
            lives: 1 + chance.below(3),
        };
        if chance.permille(200) {
            // A quiet seed, in which everything must succeed.
            (plan.lost, plan.failing, plan.killing) = (0, 0, 0);
            (plan.stuck, plan.misfortune) = (0, 0);
        }
        plan
    }

    /// A driver domain in which nothing fails, and nothing takes long.
    pub(super) fn calm() -> Self {
        Self {
            mode: Mode::DriverDomain,
            vm_readable: true,
            message: 1,
            lost: 0,
            twice: 0,
            worker: 1,
            others: 1,
            failing: 0,
            killing: 0,
            stuck: 0,
            misfortune: 0,
            lives: 1,
        }
    }

    /// The time that a recreated device may take: for a handler, its release and another handler, each with the delays of a
    /// worker, and for the messages between them.
    pub(super) fn recreation(&self) -> Duration {
        Duration::from_millis(3 * 2 * self.worker + 60 * self.message)
    }

    /// Tests whether nothing fails, and there are only delays.
    pub(super) fn is_quiet(&self) -> bool {
        self.lost + self.failing + self.killing + self.stuck + self.misfortune == 0
    }
}
