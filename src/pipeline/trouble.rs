//! A store that does not answer.

use std::time::Duration;

use super::Shared;
use crate::limits::{SPOOL_PAUSE_FIRST, SPOOL_PAUSE_MAX};
use crate::observe::Happening;
use crate::spool::SpoolError;

/// A spool that fails again and again: told once, tried ever more seldom, told when it is over.
pub(super) struct Trouble {
    doing: &'static str,
    failures: u32,
}

impl Trouble {
    pub(super) fn new(doing: &'static str) -> Trouble {
        Trouble { doing, failures: 0 }
    }

    pub(super) fn pause(&mut self, shared: &Shared, error: &SpoolError) -> Duration {
        let pause = SPOOL_PAUSE_FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(SPOOL_PAUSE_MAX);
        if self.failures == 0 {
            shared.tell(Happening::SpoolFailing {
                doing: self.doing,
                reason: error,
                pause,
            });
        }
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Returns whether there was any.
    pub(super) fn over(&mut self, shared: &Shared) -> bool {
        if self.failures == 0 {
            return false;
        }
        shared.tell(Happening::SpoolRecovered { doing: self.doing });
        self.failures = 0;
        true
    }
}
