//! What a seed has in store.

use std::time::Duration;

use xenplug_xenbus::Mode;

use super::chance::Chance;

/// What a seed has in store. Times are milliseconds, and the longest; odds are of a thousand.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) mode: Mode,
    /// Whether the daemon may read the guests' `vm` nodes.
    pub(super) vm_readable: bool,
    /// A message between daemon and store.
    pub(super) message: u64,
    /// Events that are lost, or told twice.
    pub(super) lost: u64,
    pub(super) twice: u64,
    /// A worker, before it begins and before it tells that it has ended.
    pub(super) worker: u64,
    /// A step of a guest's, of the kernel's, of the toolstack's.
    pub(super) others: u64,
    /// Calls of the machine's that fail, and after which the daemon is killed.
    pub(super) failing: u64,
    pub(super) killing: u64,
    /// Workers that are held up in the kernel, after what they did.
    pub(super) held_up: u64,
    /// Between two misfortunes of those that come by themselves; none if 0.
    pub(super) misfortune: u64,
    /// How many guests each domain id has, one after the other.
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
            held_up: chance.pick(&[0, 0, 0, 20]),
            misfortune: chance.pick(&[0, 1000, 10_000, 40_000]),
            lives: 1 + chance.below(3),
        };
        if chance.permille(200) {
            // A quiet one, in which everything has to go well.
            (plan.lost, plan.failing, plan.killing) = (0, 0, 0);
            (plan.held_up, plan.misfortune) = (0, 0);
        }
        plan
    }

    /// A driver domain in which nothing goes wrong, and nothing takes long.
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
            held_up: 0,
            misfortune: 0,
            lives: 1,
        }
    }

    /// How long a handler, the undoing of what it did and another handler may take, of which each waits for a worker to begin
    /// and to be heard; and the messages in between.
    pub(super) fn anew(&self) -> Duration {
        Duration::from_millis(3 * 2 * self.worker + 60 * self.message)
    }

    /// Whether nothing goes wrong but that things take their time.
    pub(super) fn is_quiet(&self) -> bool {
        self.lost + self.failing + self.killing + self.held_up + self.misfortune == 0
    }
}
