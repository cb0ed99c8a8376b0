-- The first schema. Later ones are steps from it; a step is never edited once released.
-- Times are milliseconds since the Unix epoch.

-- One row for each accepted transaction. seq is the order of arrival.
CREATE TABLE mails (
    seq          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           BLOB    NOT NULL,            -- UUID version 7, 16 bytes
    received_ms  INTEGER NOT NULL,
    peer         TEXT    NOT NULL,
    helo         TEXT    NOT NULL,
    tls          TEXT,
    user         TEXT,
    reverse_path TEXT    NOT NULL,
    bytes        INTEGER NOT NULL,
    message_id   TEXT                         -- known once the mail is decided
);
CREATE UNIQUE INDEX mails_by_id ON mails (id);
CREATE INDEX mails_by_message_id ON mails (message_id) WHERE message_id IS NOT NULL;

-- Apart from mails, so that lists do not drag the bodies through the cache.
CREATE TABLE bodies (
    seq INTEGER PRIMARY KEY,                  -- mails.seq
    raw BLOB NOT NULL
);

-- One row for each mail and team; further parts when a digest is split.
CREATE TABLE deliveries (
    id            INTEGER PRIMARY KEY,
    seq           INTEGER NOT NULL,           -- mails.seq
    team          TEXT    NOT NULL,
    part          INTEGER NOT NULL DEFAULT 0,
    forward_path  TEXT    NOT NULL,
    stage         INTEGER NOT NULL,           -- 0 accepted 1 behind 2 waiting 3 sending 4 settled
    source        TEXT,
    rule          TEXT,
    event         TEXT,
    status        TEXT,                       -- X-S4-Status, when something is to be sent
    external_id   TEXT,
    title         TEXT,
    escalate      INTEGER NOT NULL DEFAULT 0,
    decision      TEXT,                       -- JSON
    urgency       INTEGER NOT NULL DEFAULT 0, -- 0 leaves first
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    since_ms      INTEGER NOT NULL,           -- when giving up began to be counted
    maybe_paged   INTEGER NOT NULL DEFAULT 0,
    progress      TEXT,                       -- JSON
    outcome       TEXT,
    reason        TEXT,
    settled_ms    INTEGER,
    CHECK ((stage = 4) = (outcome IS NOT NULL AND settled_ms IS NOT NULL))
);
CREATE UNIQUE INDEX deliveries_by_mail ON deliveries (seq, team, part);
CREATE INDEX deliveries_undecided ON deliveries (seq) WHERE stage = 0;
CREATE INDEX deliveries_due ON deliveries (team, urgency, not_before_ms, seq, part) WHERE stage = 2;
CREATE INDEX deliveries_sending ON deliveries (id) WHERE stage = 3;
-- Order per ticket: one delivery of a ticket has its turn, the others are behind it.
CREATE UNIQUE INDEX deliveries_turn ON deliveries (team, external_id)
    WHERE stage IN (2, 3) AND external_id IS NOT NULL;
CREATE INDEX deliveries_behind ON deliveries (team, external_id, seq, part)
    WHERE stage = 1 AND external_id IS NOT NULL;
-- What is retried must not follow what has overtaken it.
CREATE INDEX deliveries_of_ticket ON deliveries (team, external_id, seq, part)
    WHERE external_id IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (seq) WHERE outcome = 'dead-letter';
-- What retention may remove: not a dead letter that nobody has looked at.
CREATE INDEX deliveries_finished ON deliveries (settled_ms)
    WHERE stage = 4 AND (outcome <> 'dead-letter' OR reason = 'dropped by a person');

CREATE TABLE attempts (
    delivery  INTEGER NOT NULL,               -- deliveries.id
    at_ms     INTEGER NOT NULL,
    took_ms   INTEGER NOT NULL,
    transport TEXT    NOT NULL,
    result    TEXT    NOT NULL,
    answer    TEXT    NOT NULL
);
CREATE INDEX attempts_by_delivery ON attempts (delivery);

-- What SIGNL4 has been told.
CREATE TABLE tickets (
    team        TEXT    NOT NULL,
    external_id TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    paged       INTEGER NOT NULL,
    changed_ms  INTEGER NOT NULL,
    alert       TEXT,                         -- JSON, as first sent
    PRIMARY KEY (team, external_id)
) WITHOUT ROWID;
CREATE INDEX tickets_unresolved ON tickets (changed_ms) WHERE state <> 'resolved';
CREATE INDEX tickets_resolved ON tickets (changed_ms) WHERE state = 'resolved';

-- Running totals, written together with each change: `accepted`, `split`, `pruned`, and each outcome.
CREATE TABLE ledger (
    team  TEXT    NOT NULL,
    entry TEXT    NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (team, entry)
) WITHOUT ROWID;
