//! Every bound of the program that is not a configuration key: value, unit, reason.

/// Problems reported for one file. More would not be read, and a hostile file could have millions.
pub const DIAGNOSTICS_MAX: usize = 100;

// --- spool

/// Writes that share one sync. More would make the first of them wait for the last.
pub const GROUP_WRITES_MAX: usize = 512;
/// Bytes of mail that share one sync: what a slow disk writes in a fraction of a second.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Writes that wait for the store's thread; the next one waits outside, and its peer with it.
pub const WRITES_WAITING_MAX: usize = 1024;
/// Bytes of undecided mail in memory at a time (one mail may be larger).
pub const UNDECIDED_BYTES_MAX: usize = 16 << 20;
/// A mail with the same Message-ID is a duplicate for this long: RFC 5321 4.5.4.1 has senders
/// try for 4 to 5 days.
pub const DUPLICATE_WINDOW: std::time::Duration = std::time::Duration::from_hours(5 * 24);
/// Bytes of a Message-ID that are kept; RFC 5322 2.1.1 has no line longer than 998.
pub const MESSAGE_ID_BYTES_MAX: usize = 998;

// --- delivery

/// Requests under way for one team: enough to fill a fast endpoint, few enough for a slow one.
pub const IN_FLIGHT_PER_TEAM: usize = 32;
/// Mails read and decided in one go.
pub const DECIDE_BATCH: usize = 64;
/// Failed attempts in a row that open the circuit of a transport.
pub const FAILURES_UNTIL_SHUT: u32 = 3;
/// Refusals in a row (wrong secret, bad body) that open it; SIGNL4 takes 10 a minute.
pub const REJECTIONS_UNTIL_SHUT: u32 = 4;
/// How often a refusing transport is probed.
pub const REFUSED_PROBE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(60);
/// The longest wait that another side may ask for; a mistaken header must not silence a team.
pub const RETRY_AFTER_MAX: std::time::Duration = std::time::Duration::from_hours(1);
/// Bytes read of an HTTP answer.
pub const ANSWER_BYTES_MAX: usize = 4 << 10;
/// Received headers that make a mail a looping one (RFC 5321 6.3 asks for at least 100).
pub const RECEIVED_HEADERS_MAX: usize = 100;
/// Bytes of one value in a relayed alert; the webhook has no such bound.
pub const DIALECT_VALUE_BYTES_MAX: usize = 16 << 10;
/// How long running deliveries may take to end after a shutdown was asked for.
pub const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(20);
/// How long one relayed mail may take from connect to the answer.
pub const RELAY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);
/// Idle connections kept for reading the spool.
pub const SPOOL_READERS_MAX: usize = 4;
/// Unfinished deliveries of one ticket that a close is compared with, to cancel them.
pub const BEHIND_MAX_FOR_CANCEL: usize = 1000;
/// Repeats that one lease ends in a row before it lets others write.
pub const LEASE_ROUNDS_MAX: usize = 64;
/// Postponed deliveries of one urgency that are due at once when a transport works again.
pub const HURRIED_MAX: usize = 1000;
/// How long the pipeline sleeps when nothing happens. Only changes by another process, such as
/// `mailbell queue retry`, are found this way; everything else wakes it.
pub const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);
/// The pause after the first failure of the spool; doubles up to the longest.
pub const SPOOL_PAUSE_FIRST: std::time::Duration = std::time::Duration::from_millis(200);
pub const SPOOL_PAUSE_MAX: std::time::Duration = std::time::Duration::from_secs(10);
