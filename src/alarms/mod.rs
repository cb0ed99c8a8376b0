//! What the gateway tells people about itself: dead letters, a backlog, a transport that fails.
//!
//! An alarm is a mail that the gateway accepts from itself. So it is durable, ordered and told once,
//! takes the second transport when the first fails, and stands in the ledger as any other.
//!
//! [`cause`], [`notice`], [`own`] and [`silence`] are pure; [`watch`] looks for causes;
//! [`canary`] sends a mail through all of it; [`heartbeat`] tells somebody outside that there is none that alarms could not tell. Must not know how alerts travel.

pub mod canary;
pub mod cause;
pub mod heartbeat;
pub mod notice;
pub mod own;
pub mod silence;
pub mod watch;

/// The source that alarms name.
pub const SOURCE: &str = "mailbell";
