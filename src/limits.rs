//! Every bound of the program that is not a configuration key: value, unit, reason.

use std::time::Duration;

/// Problems reported for one file. More would not be read, and a hostile file could have millions.
pub const DIAGNOSTICS_MAX: usize = 100;

/// Bytes of a secret's file. A key file named by mistake must not be read into a header.
pub const SECRET_FILE_BYTES_MAX: u64 = 4096;

/// Bytes of a configuration or rule file.
pub const TOML_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a mail named on the command line: what the largest configured door would take.
pub const MAIL_FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of an SMTP command line with its CRLF. RFC 5321 4.5.3.1.4 asks for 512, SMTPUTF8 and
/// the MAIL parameters for some more; Postfix takes 2,048.
pub const SMTP_LINE_BYTES_MAX: usize = 2_048;

/// Bytes of an address. RFC 5321 4.5.3.1.3 has 256; senders with variable return paths pass it.
pub const SMTP_ADDRESS_BYTES_MAX: usize = 512;

/// Bytes of the name in EHLO that are kept. A domain has at most 255.
pub const SMTP_HELO_BYTES_MAX: usize = 255;

/// 5xx replies in one session without a mail in between. Postfix's hard error limit is 20.
pub const SMTP_ERRORS_MAX: u32 = 20;

/// Refused recipients in one session without a mail in between. Large lists with a few dead
/// addresses are honest, a dictionary is not.
pub const SMTP_RECIPIENTS_REFUSED_MAX: u32 = 100;

/// 4xx replies in one session without a mail in between. A sender with more recipients than are taken
/// goes on with those that were (RFC 5321 4.5.3.1.10), so this is far above any honest list.
pub const SMTP_DEFERRALS_MAX: u32 = 1_000;

/// NOOP, RSET, VRFY, HELP, EHLO, MAIL and an empty BDAT in one session without a mail in between; after
/// that each counts as an error. The same number as Postfix's smtpd_junk_command_limit.
pub const SMTP_JUNK_COMMANDS_MAX: u32 = 100;

/// Transactions in one session. A sender with more to say connects again, so that no
/// connection lives for ever.
pub const SMTP_TRANSACTIONS_MAX: u32 = 10_000;

/// Refused AUTH exchanges in one session, after which it is closed.
pub const SMTP_AUTH_FAILURES_MAX: u32 = 3;

/// Bytes of a header section. Real ones stay under 100 kB; rules look at headers one by one.
pub const SMTP_HEADER_BYTES_MAX: usize = 1024 * 1024;

/// Received fields that a peer may send, above which a mail is in a loop (RFC 5321 6.3 asks for at
/// least 100). The door's own is not among them.
pub const SMTP_HOPS_MAX: usize = 100;

/// Bytes of a data line with its CRLF, for strict mode only (RFC 5321 4.5.3.1.6).
pub const SMTP_TEXT_LINE_BYTES_MAX: usize = 1_000;

/// Bytes in memory of mails in transfer over all sessions: a thousand large ones. Beyond that senders
/// are told to come again instead of the process being killed.
pub const SMTP_MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes of a mail that stay in memory until it is accepted; what follows goes to the store in pieces
/// of this size. Mails without attachments, and so nearly all, are written at once.
pub const SMTP_PIECE_BYTES: usize = 128 * 1024;

/// Bytes in the store of mails in transfer over all sessions, so that peers that never come to an end
/// do not fill the disk.
pub const SMTP_KEPT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// Bytes read from a socket at once: one TLS record.
pub const SMTP_READ_BYTES: usize = 16 * 1024;

/// Time for a TLS handshake. Clients need a second; a half-open one must not hold a connection.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes of a PROXY header. A v1 line has at most 107, a v2 header with addresses 232; balancers add
/// TLVs such as a client certificate's name.
pub const PROXY_HEADER_BYTES_MAX: usize = 4_096;

/// Time for a load balancer to send its PROXY header: the protocol asks for at least 3 seconds, so
/// that one lost packet is sent again.
pub const PROXY_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Left until a certificate's end when health begins to warn: a renewal that runs every day (Let's
/// Encrypt renews at 30 days) has failed for two weeks by then.
pub const CERTIFICATE_WARNING: Duration = Duration::from_secs(14 * 24 * 3600);

/// Between two looks at a certificate's end.
pub const CERTIFICATE_EVERY: Duration = Duration::from_secs(3600);

/// How long certificate files must be quiet before they are read: a renewal writes two of them.
pub const CERTIFICATE_QUIET: Duration = Duration::from_millis(500);

/// File descriptors that are no SMTP connection: listeners, spool, deliveries, HTTP.
pub const DESCRIPTORS_BESIDE: usize = 256;

/// Time for the store to make a mail durable. Clients wait 10 minutes (RFC 5321 4.5.3.2.6).
pub const SMTP_STORE_TIMEOUT: Duration = Duration::from_secs(120);

/// Time for a peer to read a reply and the close after a session's end.
pub const SMTP_LINGER: Duration = Duration::from_secs(2);

/// Connections that the system holds until they are taken, if its own bound (`net.core.somaxconn`, 4096
/// by default) allows it.
pub const LISTEN_BACKLOG: u32 = 4096;

/// Pause after accept() failed, EMFILE for example: trying at once would fail at once.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// First delay of an answer to a wrong password; doubled with each further one of that peer.
pub const AUTH_DELAY_FIRST: Duration = Duration::from_millis(500);

/// Longest delay of an answer to a password.
pub const AUTH_DELAY_MAX: Duration = Duration::from_secs(16);

/// How long the failures of a peer are remembered.
pub const AUTH_MEMORY: Duration = Duration::from_secs(15 * 60);

/// Peers whose failures are remembered.
pub const AUTH_PEERS_MAX: usize = 10_000;

/// Passwords verified at the same time. One argon2 takes 19 MiB and a core.
pub const AUTH_CONCURRENT_MAX: usize = 4;

const _: () = assert!(SMTP_ADDRESS_BYTES_MAX < SMTP_LINE_BYTES_MAX);

// --- reading a mail

/// MIME parts of one mail that are looked at; the rest is left unread, and the message says so.
pub const MIME_PARTS_MAX: usize = 500;

/// Multiparts and forwarded mails inside each other. Each level scans its bytes once more.
pub const MIME_NESTING_MAX: usize = 24;

/// Header fields of one part. Real mails have up to about a hundred.
pub const HEADERS_MAX: usize = 500;

/// Bytes of one part's header block that are read. The largest real ones (ARC, DKIM) stay under 64 KiB.
pub const HEADER_BLOCK_BYTES_MAX: usize = 256 * 1024;

/// Bytes of one decoded header value.
pub const HEADER_VALUE_BYTES_MAX: usize = 16 * 1024;

/// Decoded bytes of one text or HTML part that are read. Pictures inlined as `data:` make real ones large.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// HTML elements inside each other. Deeper ones are read as if they were not there.
pub const HTML_NESTING_MAX: usize = 192;

/// Bytes of `Message::text`, and of `Message::set_apart`. Rules run every regex over the first.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of rendered lines that are looked at for labels, history and footers: twice what may come
/// out, because history and wrapping blanks go. Millions of short lines would take seconds.
pub const RENDERED_BYTES_MAX: usize = 2 * TEXT_BYTES_MAX;

/// Columns of one table row that are read.
pub const TABLE_COLUMNS_MAX: usize = 64;

/// Characters of a file name given to people.
pub const FILE_NAME_CHARS_MAX: usize = 200;

/// Attachment names of one mail.
pub const ATTACHMENTS_MAX: usize = 100;

/// Forwards of forwards that are opened, by text or by attachment.
pub const FORWARDS_MAX: usize = 8;

/// Mails attached side by side that are read: one for each ticket that somebody marked and forwarded.
pub const ATTACHED_MAILS_MAX: usize = 20;

/// No further attached mail is read once their texts have so many bytes.
pub const ATTACHED_TEXT_BYTES_MAX: usize = TEXT_BYTES_MAX;

/// Bytes that are left for reading of a mail too large to be held whole: several texts of the largest
/// size that is read. Others are cut off there.
pub const THINNED_BYTES_MAX: usize = 16 * 1024 * 1024;

// --- rules

/// Bytes of one compiled regex. The `regex` crate's own default: a Unicode class repeated some
/// hundred times is refused, which no line of a ticket mail needs.
pub const REGEX_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Bytes of what one regex keeps from its searches, in each direction and thread. A table that is
/// full is begun anew, and the `regex` crate gives up on it when that happens too often.
pub const REGEX_CACHE_BYTES_MAX: usize = 512 * 1024;

/// Bytes of an external id. PostgreSQL's index takes 2,700 of a row; ticket numbers have about twenty.
pub const EXTERNAL_ID_BYTES_MAX: usize = 1000;

/// Characters of an alert's title. Longer ones are cut: phones show a few lines at most.
pub const ALERT_TITLE_CHARS_MAX: usize = 250;

/// Characters of an alert's message. SIGNL4 documents no limit; a person woken at night reads
/// the beginning, and the rest is behind the ticket's link.
pub const ALERT_MESSAGE_CHARS_MAX: usize = 4000;

/// Characters of one tile.
pub const ALERT_PARAMETER_CHARS_MAX: usize = 1000;

/// Tickets that one digest is split into. The rest of it alerts as one.
pub const SPLIT_TICKETS_MAX: usize = 100;

// --- spool

/// Writes that share one sync. More would make the first of them wait for the last.
pub const GROUP_WRITES_MAX: usize = 512;
/// Bytes of mail that share one sync: what a slow disk writes in a fraction of a second.
pub const GROUP_BYTES_MAX: usize = 8 << 20;
/// Writes that wait for the store's thread; the next one waits outside, and its peer with it.
pub const WRITES_WAITING_MAX: usize = 1024;
/// Bytes of undecided mail in memory at a time (one mail may be larger).
pub const UNDECIDED_BYTES_MAX: usize = 8 << 20;
/// A mail with the same Message-ID is a duplicate for this long: RFC 5321 4.5.4.1 has senders
/// try for 4 to 5 days.
pub const DUPLICATE_WINDOW: std::time::Duration = std::time::Duration::from_hours(5 * 24);
/// Bytes of a Message-ID that are kept; RFC 5322 2.1.1 has no line longer than 998.
pub const MESSAGE_ID_BYTES_MAX: usize = 998;

/// Connections of one node to PostgreSQL: accepting, reading, leasing and settling go on at the same
/// time, and some pages are looked at. Its default is 100 for all nodes together.
pub const POSTGRES_CONNECTIONS: usize = 10;
/// How long a connection to PostgreSQL may take to be made, or to become free; and how long what was sent
/// on one may go without TCP's own acknowledgement.
pub const POSTGRES_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent connection to PostgreSQL is asked after so long whether anybody is there, and then so often and
/// so many times.
pub const POSTGRES_KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
pub const POSTGRES_KEEPALIVE_EVERY: Duration = Duration::from_secs(3);
pub const POSTGRES_KEEPALIVES: u32 = 3;
/// How long PostgreSQL may take for one transaction, which has some milliseconds of work. Two of them, and
/// the way to a connection, fit into [`SMTP_STORE_TIMEOUT`].
pub const POSTGRES_WORK_MAX: Duration = Duration::from_secs(20);
/// The same for one heartbeat: another, on another connection, fits into [`NODE_EXPIRES`].
pub const POSTGRES_BEAT_MAX: Duration = Duration::from_secs(4);
/// The pause after the connection on which a node listens was lost; doubles up to the longest. A node
/// that is not back within two heartbeats is taken for dead.
pub const POSTGRES_PAUSE_FIRST: Duration = Duration::from_millis(200);
pub const POSTGRES_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A node renews its row, and looks for the others, so often.
pub const NODE_HEARTBEAT: Duration = Duration::from_secs(1);
/// A node whose row was not renewed for so long is gone, and the others take over, also when it cannot
/// be told from one whose connections have broken. Several beats may be late; a request to SIGNL4 that is under way has ended by then.
pub const NODE_EXPIRES: Duration = Duration::from_secs(10);
/// Between two notifications to the other nodes.
pub const RING_PAUSE: Duration = Duration::from_millis(20);
/// How long a node waits for a notification before it looks by itself.
pub const LOOK_AGAIN_ELSEWHERE: Duration = Duration::from_secs(5);
/// Transactions that another was in the way of are tried again so often.
pub const COLLISIONS_MAX: u32 = 5;
/// Readings that take their place in one transaction, of whichever node.
pub const PLACED_AT_ONCE: usize = 256;
/// Tickets locked in one transaction, one mail's aside. By default PostgreSQL has room for some 6,400
/// locks, a small one for 3,000, which all transactions share (`max_locks_per_transaction`).
pub const TICKETS_LOCKED_MAX: usize = 1000;
/// Before deliveries are leased whose tickets another node was just changing.
pub const LEASE_COLLISION_PAUSE: Duration = Duration::from_millis(20);

// --- delivery

/// Requests under way for one team: enough to fill a fast endpoint, few enough for a slow one.
pub const IN_FLIGHT_PER_TEAM: usize = 32;
/// The same while a webhook has not just worked: SIGNL4 takes 10 erroneous requests a minute.
pub const UNPROVEN_IN_FLIGHT: usize = 4;
/// A team that this gateway does not know has been configured at another, or never will be.
pub const LEFT_TO_OTHERS_FOR: Duration = Duration::from_secs(600);
/// Mails read and decided in one go.
pub const DECIDE_BATCH: usize = 64;
/// Settlements stored in one go.
pub const SETTLE_BATCH: usize = 64;
/// How long a settlement waits for others that share its sync. Short beside the time that an answer
/// takes from SIGNL4: a death in either repeats the delivery.
pub const SETTLE_PATIENCE: std::time::Duration = std::time::Duration::from_millis(5);
/// How long reading and deciding one mail may take, by the time that its thread has a core; six times
/// as long by the clock. Sound ones take milliseconds, hostile ones some hundreds. The mails behind it
/// wait for as long.
pub const READING_MAX: std::time::Duration = std::time::Duration::from_secs(10);
/// A mail up to this size is read while the store accepts it. A copy of it is; larger ones are rare.
pub const AHEAD_BYTES_MAX: usize = 64 << 10;
/// What reading is nicer than the door by: where both want the same core, it gets a tenth of it, which
/// reads some thousand mails a second.
pub const READING_NICENESS: i32 = 10;
/// How long a thread that reads is kept for the next mail: so that there always is one.
pub const READING_THREAD_KEPT: Duration = Duration::from_secs(365 * 24 * 3600);
/// What was read ahead of a mail's acceptance is good for so long: rules change.
pub const AHEAD_MAX: Duration = Duration::from_secs(2);
/// Decisions are stored at least this often, slow mails among them or not.
pub const READING_BATCH_MAX: std::time::Duration = std::time::Duration::from_secs(1);
/// Threads still busy with mails that were given up: each may use a core and the mail's memory.
pub const READERS_STUCK_MAX: usize = 4;
/// Bytes of mails that the relay is sending on as they came, at a time (one mail may be larger). Each is
/// in memory some three times: as it is, as it goes over the wire, and in the connection.
pub const ORIGINALS_BYTES_MAX: u32 = 32 << 20;
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
/// X-Mailbell-Id headers of one mail that are looked up in the store: one for each gateway on its
/// way. A hostile mail could have thousands.
pub const RELAYED_IDS_MAX: usize = 10;
/// Bytes of one value in a relayed alert; the webhook has no such bound.
pub const DIALECT_VALUE_BYTES_MAX: usize = 16 << 10;
/// How long running deliveries may take to end after a shutdown was asked for.
pub const DRAIN_MAX: std::time::Duration = std::time::Duration::from_secs(20);

// --- the pipeline and its spool

/// Idle connections kept for reading the spool.
pub const SPOOL_READERS_MAX: usize = 4;
/// Unfinished deliveries of one ticket that a close is compared with, to cancel them.
pub const BEHIND_MAX_FOR_CANCEL: usize = 1000;
/// Tickets that a storm's summary lists; the rest of them are counted. What fits the text of an alert.
pub const STORM_LISTED_MAX: usize = 40;
/// The largest number of new tickets that may be configured to be no storm: their times are kept.
pub const STORM_TICKETS_MAX: usize = 1000;
/// A clock that goes back by less than this only makes deliveries wait as much longer.
pub const CLOCK_STEP_MIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Repeats that one lease ends in a row before it lets others write.
pub const LEASE_ROUNDS_MAX: usize = 64;
/// Postponed deliveries of one urgency that are due at once when a transport works again.
pub const HURRIED_MAX: usize = 1000;
/// Deliveries of one urgency that are looked at for the one that has been late for the longest.
pub const LATE_LOOKED_AT: usize = 1000;
/// Between two looks for changes by another process, such as `mailbell queue retry`: one number
/// read from shared memory.
pub const LOOK_ELSEWHERE: std::time::Duration = std::time::Duration::from_secs(1);
/// How long the pipeline sleeps when nothing happens. Everything that happens wakes it; this is
/// for what nobody has thought of.
pub const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);
/// The pause after the first failure of the spool; doubles up to the longest.
pub const SPOOL_PAUSE_FIRST: std::time::Duration = std::time::Duration::from_millis(200);
pub const SPOOL_PAUSE_MAX: std::time::Duration = std::time::Duration::from_secs(10);

// --- what the gateway tells of itself

/// Between two looks for what is wrong with the gateway itself, when nothing happens.
pub const ALARMS_EVERY: Duration = Duration::from_secs(10);

/// The least time between two of them.
pub const ALARMS_PAUSE: Duration = Duration::from_secs(1);

/// Days that a silence is counted back; of a longer one it is known enough.
pub const SILENCE_DAYS_MAX: i32 = 400;

/// A source that was last seen so long ago: its next mail is noted at once, others now and then.
pub const SEEN_NOTED_AFTER: Duration = Duration::from_secs(60);

/// Between two trials of a store that has refused a mail; a load balancer asks about as often.
pub const STORE_TRIED_EVERY: Duration = Duration::from_secs(5);

/// Each step of the heartbeat, and a trial of the store: the door's greeting, the store's answer, the call.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// The canary has so long to be accepted, and again to reach its outcome: some mails may be read before
/// it, each for as long as [`READING_MAX`].
pub const CANARY_MAX: Duration = Duration::from_secs(60);

/// Between two looks for its outcome.
pub const CANARY_LOOK_AGAIN: Duration = Duration::from_millis(200);

/// An alarm that has reached nobody is raised again after this long.
pub const ALARM_REPEATED_AFTER: Duration = Duration::from_secs(3600);

/// What another gateway has seen so recently it still sees: some of its looks.
pub const ALARM_SEEN_FOR: Duration = Duration::from_secs(45);

// --- the end of service

/// How long a mail in the middle may take to come to its end when the gateway stops. Below the
/// 90 seconds after which systemd kills by default.
pub const DOOR_DRAIN: Duration = Duration::from_secs(20);

// --- retry and retention

/// Dead letters retried in one transaction: some tens of milliseconds of the writer's time, and far
/// fewer than PostgreSQL has locks.
pub const RETRY_BATCH: usize = 256;

/// Between two of them, of another process than the gateway: SQLite looks every 100 ms whether a
/// file is free.
pub const RETRY_PAUSE: Duration = Duration::from_millis(150);

/// Finished mails removed in one transaction: some milliseconds of the writer's time.
pub const PRUNE_BATCH: usize = 500;

/// Between two batches, so that accepting mails goes on at nearly full speed.
pub const PRUNE_PAUSE: Duration = Duration::from_millis(200);

/// Between two looks for mails whose retention is over.
pub const PRUNE_EVERY: Duration = Duration::from_secs(10 * 60);

// --- what people look at

/// Mails that one search goes through, newest first, when no index knows the answer: some tens of
/// milliseconds.
pub const SEARCH_MAX: usize = 20_000;

/// HTTP connections at the same time; further ones wait to be accepted. Half of
/// [`DESCRIPTORS_BESIDE`].
pub const HTTP_CONNECTIONS_MAX: usize = 128;

/// Time for a whole request line and header, and between two requests of a connection.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Those of one peer; further ones are turned away. A proxy is one peer for all that are behind it: it
/// needs one for each of [`EVENT_STREAMS_MAX`] and some for pages, and others still find a place.
pub const HTTP_CONNECTIONS_PER_PEER_MAX: usize = 96;

/// Time for the whole body of a request. The largest, of [`API_BODY_BYTES_MAX`], takes a second at 64 Mbit/s.
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a peer may take none of an answer that is there for it.
pub const HTTP_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long requests may go on when the gateway stops.
pub const HTTP_DRAIN: Duration = Duration::from_secs(1);

/// How long a person stays logged in.
pub const SESSION_AGE: Duration = Duration::from_secs(12 * 3600);

/// How soon a stream of events notices that its session has ended, when nothing happens.
pub const SESSION_LOOKED_AT: Duration = Duration::from_secs(15);

/// Sessions at the same time; the oldest ends when there is one more.
pub const SESSIONS_MAX: usize = 1000;

/// A request to the API: a rule file and a mail that somebody tries it on, in JSON.
pub const API_BODY_BYTES_MAX: usize = 8 << 20;

/// Mails on one page of the API.
pub const API_PAGE_MAX: usize = 200;

/// Browsers that follow what happens, at the same time.
pub const EVENT_STREAMS_MAX: usize = 64;

/// Happenings that a slow browser may be behind; then it is told to read everything again.
pub const EVENTS_BEHIND_MAX: usize = 256;

/// Former versions that are kept of each rule file.
pub const RULE_VERSIONS_MAX: usize = 50;

/// Drafts of rule files that are tried at the same time; each takes a core for a moment.
pub const DRAFTS_CONCURRENT_MAX: usize = 2;

/// How long somebody who tries or saves a rule file waits for those before, who take a moment.
pub const RULES_TURN_MAX: Duration = Duration::from_secs(10);

/// A count for people goes no further: some milliseconds, however large the store is.
pub const COUNT_MAX: u64 = 10_000;

// --- traces

/// Spans that wait for the collector of traces; more are dropped, and counted.
pub const OTLP_QUEUE_MAX: usize = 4096;

/// Spans in one request to the collector.
pub const OTLP_BATCH_MAX: usize = 512;

/// How long spans are gathered before they are sent.
pub const OTLP_EVERY: Duration = Duration::from_secs(1);

/// What the collector may take to answer; the stop of the gateway waits that long, too.
pub const OTLP_TIMEOUT: Duration = Duration::from_secs(3);

// --- commands

/// How long `mailbell send` waits for the gateway, and then for the outcome.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks of `mailbell tail` into the store.
pub const TAIL_EVERY: Duration = Duration::from_millis(250);

/// How long after a mail others may appear in front of it, in the order of arrival: as long as the
/// transaction may take that has given them their places.
pub const TAIL_LATE_MAX: Duration = POSTGRES_WORK_MAX;

/// Deliveries that it reads at once.
pub const TAIL_PAGE: usize = 200;

/// Mails whose end it waits for; of more, the oldest are not told.
pub const TAIL_WAITING_MAX: usize = 1000;
