//! One task for each key: started when the key is first used, woken when something may have changed, and forgotten when
//! the task has nothing left to do.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

/// The wake-up of one task, and the state that it shares with others.
pub(crate) struct Slot<S> {
    notify: Notify,
    /// True if the task was woken since it last began a turn.
    woken: AtomicBool,
    pub(crate) state: S,
}

impl<S> Slot<S> {
    fn new(state: S) -> Self {
        Self {
            notify: Notify::new(),
            woken: AtomicBool::new(false),
            state,
        }
    }

    /// Lets the task take a turn. Wake-ups before that turn count once.
    pub(crate) fn wake(&self) {
        self.woken.store(true, Ordering::SeqCst);
        self.notify.notify_one();
    }

    /// Waits until the task is woken, and begins its turn.
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
        self.woken.store(false, Ordering::SeqCst);
    }
}

/// The tasks by key.
pub(crate) struct KeyedTasks<K, S> {
    slots: Mutex<BTreeMap<K, Arc<Slot<S>>>>,
}

impl<K, S> Default for KeyedTasks<K, S> {
    fn default() -> Self {
        Self {
            slots: Mutex::default(),
        }
    }
}

impl<K: Ord + Clone, S> KeyedTasks<K, S> {
    pub(crate) fn get(&self, key: &K) -> Option<Arc<Slot<S>>> {
        self.slots().get(key).cloned()
    }

    /// Returns the slot of a key. A key that is not known gets a slot, and `start` starts its task.
    pub(crate) fn get_or_start(&self, key: &K, start: impl FnOnce(Arc<Slot<S>>)) -> Arc<Slot<S>>
    where
        S: Default,
    {
        let mut slots = self.slots();
        if let Some(slot) = slots.get(key) {
            return Arc::clone(slot);
        }
        let slot = Arc::new(Slot::new(S::default()));
        slots.insert(key.clone(), Arc::clone(&slot));
        start(Arc::clone(&slot));
        slot
    }

    /// Wakes all known tasks whose keys match.
    pub(crate) fn wake_where(&self, matches: impl Fn(&K) -> bool) {
        for (key, slot) in &*self.slots() {
            if matches(key) {
                slot.wake();
            }
        }
    }

    /// Tests whether all tasks with matching keys satisfy a condition.
    pub(crate) fn all(&self, matches: impl Fn(&K) -> bool, condition: impl Fn(&S) -> bool) -> bool {
        let slots = self.slots();
        slots.iter().all(|(key, slot)| !matches(key) || condition(&slot.state))
    }

    /// Maps every key and its state.
    pub(crate) fn map<T>(&self, each: impl Fn(&K, &S) -> T) -> Vec<T> {
        self.slots().iter().map(|(key, slot)| each(key, &slot.state)).collect()
    }

    /// Forgets a key unless its task was woken since it began its turn. Returns whether the key is forgotten; its task
    /// then ends.
    pub(crate) fn forget(&self, key: &K) -> bool {
        let mut slots = self.slots();
        if slots.get(key).is_some_and(|slot| slot.woken.load(Ordering::SeqCst)) {
            return false;
        }
        slots.remove(key);
        true
    }

    fn slots(&self) -> MutexGuard<'_, BTreeMap<K, Arc<Slot<S>>>> {
        // Every change is one call of the map, so a poisoned map is still whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    type Tasks = KeyedTasks<u32, Mutex<u32>>;

    fn start(tasks: &Tasks, key: u32) -> (Arc<Slot<Mutex<u32>>>, bool) {
        let mut started = false;
        let slot = tasks.get_or_start(&key, |_| started = true);
        (slot, started)
    }

    async fn is_woken(slot: &Slot<Mutex<u32>>) -> bool {
        timeout(Duration::from_millis(10), slot.woken()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn task_is_started_once_and_woken_by_key() {
        let tasks = Tasks::default();
        let (first, started) = start(&tasks, 1);
        assert!(started);
        let (second, started) = start(&tasks, 1);
        assert!(!started && Arc::ptr_eq(&first, &second));
        let (other, _) = start(&tasks, 2);
        tasks.wake_where(|key| *key == 1);
        assert!(is_woken(&first).await && !is_woken(&other).await);
        assert!(tasks.get(&3).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn wake_ups_before_a_turn_count_once() {
        let tasks = Tasks::default();
        let (slot, _) = start(&tasks, 1);
        slot.wake();
        slot.wake();
        assert!(is_woken(&slot).await);
        assert!(!is_woken(&slot).await);
    }

    #[tokio::test(start_paused = true)]
    async fn woken_task_is_not_forgotten() {
        let tasks = Tasks::default();
        let (slot, _) = start(&tasks, 1);
        slot.wake();
        assert!(!tasks.forget(&1));
        assert!(is_woken(&slot).await);
        assert!(tasks.forget(&1) && tasks.get(&1).is_none());
        assert!(start(&tasks, 1).1, "a new task is started");
    }

    #[test]
    fn states_are_tested_and_mapped_by_key() {
        let tasks = Tasks::default();
        for key in 1..=3 {
            *start(&tasks, key).0.state.lock().expect("not poisoned") = 10 * key;
        }
        let value = |state: &Mutex<u32>| *state.lock().expect("not poisoned");
        assert!(tasks.all(|key| *key < 3, |state| value(state) < 30));
        assert!(!tasks.all(|_| true, |state| value(state) < 30));
        assert_eq!(tasks.map(|key, state| key + value(state)), [11, 22, 33]);
    }
}
