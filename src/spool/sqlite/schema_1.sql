-- The first schema. Later ones are steps from it; a step is never edited once released.
-- Times are milliseconds since the Unix epoch.

-- One row: what is remembered of the store itself.
CREATE TABLE memory (
    one             INTEGER PRIMARY KEY CHECK (one = 1),
    is_closed       INTEGER NOT NULL,         -- in good order, by the last gateway
    doubt_before_ms INTEGER NOT NULL          -- what was accepted before may have been sent without a trace
);
INSERT INTO memory VALUES (1, 1, 0);

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
    bytes        INTEGER NOT NULL
);
CREATE UNIQUE INDEX mails_by_id ON mails (id);

-- Apart from mails, so that lists do not drag the bodies through the cache.
CREATE TABLE bodies (
    seq  INTEGER PRIMARY KEY,                 -- mails.seq
    raw  BLOB NOT NULL,                       -- of a large mail, the beginning
    rest BLOB                                 -- pieces.rest
);
CREATE UNIQUE INDEX bodies_by_rest ON bodies (rest) WHERE rest IS NOT NULL;

-- What follows the beginning of a large mail. Written while the mail is received, before there is a mail.
CREATE TABLE pieces (
    rest  BLOB    NOT NULL,                   -- UUID, 16 bytes
    at    INTEGER NOT NULL,                   -- bytes behind the beginning and before this one
    bytes BLOB    NOT NULL,
    PRIMARY KEY (rest, at)
);

-- One row for each mail and team; further ones when a digest is split or a storm is summed up.
-- A row changes some times in its life, so what is large is not in it.
CREATE TABLE deliveries (
    id            INTEGER PRIMARY KEY,        -- mails.seq * 2^20 + a number among the mail's own
    team          TEXT    NOT NULL,
    part          INTEGER NOT NULL DEFAULT 0,
    forward_path  TEXT    NOT NULL,
    stage         INTEGER NOT NULL,           -- 0 accepted 1 behind 2 waiting 3 sending 4 settled
    since_ms      INTEGER NOT NULL,           -- when giving up began to be counted
    is_summary    INTEGER NOT NULL DEFAULT 0, -- of a storm, or its close
    message_id    TEXT,                       -- known once it is decided, as the next eight are
    source        TEXT,
    rule          TEXT,
    event         TEXT,
    status        TEXT,                       -- X-S4-Status, when something is to be sent
    external_id   TEXT,
    title         TEXT,
    escalate      INTEGER NOT NULL DEFAULT 0,
    urgency       INTEGER NOT NULL DEFAULT 0, -- 0 leaves first
    not_before_ms INTEGER NOT NULL DEFAULT 0,
    maybe_paged   INTEGER NOT NULL DEFAULT 0,
    attempts      INTEGER NOT NULL DEFAULT 0,
    leases        INTEGER NOT NULL DEFAULT 0, -- how often it has been leased
    progress      TEXT,                       -- JSON
    outcome       TEXT,
    reason        TEXT,
    settled_ms    INTEGER,
    CHECK ((stage = 4) = (outcome IS NOT NULL AND settled_ms IS NOT NULL))
);
CREATE INDEX deliveries_undecided ON deliveries (stage) WHERE stage = 0;
CREATE INDEX deliveries_due ON deliveries (team, urgency, not_before_ms) WHERE stage = 2;
CREATE INDEX deliveries_sending ON deliveries (stage) WHERE stage = 3;
-- Order per ticket: one delivery of a ticket has its turn, the others are behind it.
CREATE UNIQUE INDEX deliveries_turn ON deliveries (team, external_id)
    WHERE stage IN (2, 3) AND external_id IS NOT NULL;
CREATE INDEX deliveries_behind ON deliveries (team, external_id)
    WHERE stage = 1 AND external_id IS NOT NULL;
-- What is retried must not follow what has overtaken it.
CREATE INDEX deliveries_of_ticket ON deliveries (external_id, team) WHERE external_id IS NOT NULL;
CREATE INDEX deliveries_by_message_id ON deliveries (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (outcome) WHERE outcome = 'dead-letter';

CREATE TABLE decisions (
    delivery INTEGER PRIMARY KEY,             -- deliveries.id
    decision TEXT NOT NULL                    -- JSON
);

CREATE TABLE attempts (
    delivery  INTEGER NOT NULL,               -- deliveries.id
    number    INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    took_ms   INTEGER NOT NULL,
    transport TEXT    NOT NULL,
    result    TEXT    NOT NULL,
    answer    TEXT    NOT NULL,
    PRIMARY KEY (delivery, number)
) WITHOUT ROWID;

-- What SIGNL4 has been told.
CREATE TABLE tickets (
    team        TEXT    NOT NULL,
    external_id TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    paged       INTEGER NOT NULL,
    changed_ms  INTEGER NOT NULL,
    opened_by   INTEGER,                      -- deliveries.id
    title       TEXT,
    storm       TEXT,                         -- external id of the summary that tells of it
    PRIMARY KEY (team, external_id)
) WITHOUT ROWID;
CREATE INDEX tickets_unresolved ON tickets (changed_ms) WHERE state <> 'resolved';
CREATE INDEX tickets_resolved ON tickets (changed_ms) WHERE state = 'resolved';
CREATE INDEX tickets_of_storm ON tickets (team, storm) WHERE storm IS NOT NULL;

-- Where storms are looked for: when the last new tickets came, and the summary that gathers.
CREATE TABLE storms (
    team     TEXT    NOT NULL,
    source   TEXT    NOT NULL,
    recent   TEXT    NOT NULL,                -- JSON
    delivery INTEGER,                         -- deliveries.id of the summary
    summary  TEXT,                            -- its external id
    PRIMARY KEY (team, source)
) WITHOUT ROWID;

-- Running totals, written together with each change: `accepted`, `split`, `pruned`, and each outcome.
CREATE TABLE ledger (
    team  TEXT    NOT NULL,
    entry TEXT    NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (team, entry)
) WITHOUT ROWID;

-- When something was last seen or done: sources, the heartbeat.
CREATE TABLE marks (
    name  TEXT    PRIMARY KEY,
    at_ms INTEGER NOT NULL
) WITHOUT ROWID;
