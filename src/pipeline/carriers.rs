//! Deliveries on their way: the tasks that carry them, which are leased, and which have come back and
//! are not stored yet.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::limits::SETTLE_PATIENCE;
use crate::spool::{DeliveryId, Settlement, SpoolError};

/// The tasks that carry leased deliveries; cut off when dropped.
#[derive(Debug, Default)]
pub(super) struct Carriers {
    tasks: Mutex<JoinSet<()>>,
    /// Shared with the tasks, as the next one is.
    pub(super) carried: Arc<Carried>,
    pub(super) returned: Arc<Returned>,
    /// A step of the store failed, or its answer was lost: it may have leased what nobody carries.
    pub(super) in_doubt: AtomicBool,
}

impl Carriers {
    pub(super) fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps in mind whether a step may have been done although it failed.
    pub(super) fn note<T>(&self, step: Result<T, SpoolError>) -> Result<T, SpoolError> {
        if step.is_err() {
            self.in_doubt.store(true, Ordering::Relaxed);
        }
        step
    }
}

/// What is leased and not settled, each with the number of its lease.
#[derive(Debug, Default)]
pub(super) struct Carried {
    leases: Mutex<HashSet<(DeliveryId, u32)>>,
    none_left: Notify,
}

impl Carried {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashSet<(DeliveryId, u32)>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settled(&self, settlements: &[Settlement]) {
        let mut leases = self.lock();
        for one in settlements {
            leases.remove(&(one.delivery, one.lease));
        }
        if leases.is_empty() {
            self.none_left.notify_one();
        }
    }

    /// Until all is settled.
    pub(super) async fn end(&self) {
        while !self.lock().is_empty() {
            self.none_left.notified().await;
        }
    }
}

/// Settlements on their way to the store. Those that come soon after one another, or while others are
/// being stored, are stored together.
#[derive(Debug, Default)]
pub(super) struct Returned {
    settlements: Mutex<Vec<Settlement>>,
    any: Notify,
}

impl Returned {
    pub(super) fn put(&self, settlement: Settlement) {
        self.lock().push(settlement);
        self.any.notify_one();
    }

    pub(super) async fn take(&self) -> Vec<Settlement> {
        while self.lock().is_empty() {
            self.any.notified().await;
        }
        sleep(SETTLE_PATIENCE).await;
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Settlement>> {
        self.settlements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
