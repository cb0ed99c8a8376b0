//! What time it is, as a port, so that a simulation can run weeks in seconds.
//!
//! Owns [`Time`], the one form in which moments are stored and compared.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch. Wall-clock time: it survives a restart, and may jump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

impl Time {
    pub const fn from_ms(ms: i64) -> Time {
        Time(ms)
    }

    pub const fn from_seconds(seconds: i64) -> Time {
        Time(seconds.saturating_mul(1000))
    }

    pub const fn ms(self) -> i64 {
        self.0
    }

    /// Saturates at the end of time.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(whole_ms(duration)))
    }

    /// Saturates at the beginning of time.
    #[must_use]
    pub fn minus(self, duration: Duration) -> Time {
        Time(self.0.saturating_sub(whole_ms(duration)))
    }

    /// Zero when `earlier` is not earlier, because clocks are set back.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// Milliseconds, as stores and logs have numbers; the highest number for what is longer.
pub fn whole_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

pub trait Clock: Send + Sync + std::fmt::Debug {
    fn now(&self) -> Time;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Time(whole_ms(since_epoch))
    }
}

/// Follows tokio's clock from a fixed start: with `start_paused`, waiting costs no real time.
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    start: Time,
    origin: tokio::time::Instant,
}

impl TokioClock {
    pub fn starting_at(start: Time) -> TokioClock {
        TokioClock {
            start,
            origin: tokio::time::Instant::now(),
        }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Time {
        self.start.plus(self.origin.elapsed())
    }
}
