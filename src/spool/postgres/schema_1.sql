-- The first schema. Later ones are steps from it; a step is never edited once released.
-- The tables are those of the embedded store, with what several nodes need besides.
-- Times are milliseconds since the Unix epoch by the clock of the node that wrote them. Names are compared
-- byte by byte, whatever the language of the database.

-- The gateways that share this database; each keeps its row from expiring.
CREATE TABLE nodes (
    node     uuid        PRIMARY KEY,
    hostname text        NOT NULL,
    expires  timestamptz NOT NULL
);

-- One row: what is remembered of the database itself.
CREATE TABLE memory (
    one             boolean     PRIMARY KEY DEFAULT true CHECK (one),
    server_started  timestamptz NOT NULL,
    -- What was accepted before may have been sent without a trace of it.
    doubt_before_ms bigint      NOT NULL
);

CREATE TABLE mails (
    seq          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id           uuid   NOT NULL UNIQUE,
    received_ms  bigint NOT NULL,
    peer         text   NOT NULL,
    helo         text   NOT NULL,
    tls          text,
    username     text,
    reverse_path text   NOT NULL,
    bytes        bigint NOT NULL
);

-- What follows the beginning of a large mail. Written while the mail is received, before there is a mail.
CREATE TABLE rests (
    rest uuid PRIMARY KEY,
    node uuid NOT NULL                            -- who receives it
);
CREATE TABLE pieces (
    rest  uuid   NOT NULL REFERENCES rests ON DELETE CASCADE,
    at    bigint NOT NULL,                        -- bytes behind the beginning and before this one
    bytes bytea  NOT NULL,
    PRIMARY KEY (rest, at)
);

-- A rest cannot be removed while a mail is accepted that has it, nor the other way round.
CREATE TABLE bodies (
    seq  bigint PRIMARY KEY,                      -- mails.seq
    raw  bytea  NOT NULL,                         -- of a large mail, the beginning
    rest uuid REFERENCES rests
);
CREATE UNIQUE INDEX bodies_by_rest ON bodies (rest) WHERE rest IS NOT NULL;

CREATE TABLE deliveries (
    id            bigint   PRIMARY KEY,           -- mails.seq * 2^20 + a number among the mail's own
    team          text COLLATE "C"     NOT NULL,
    part          integer  NOT NULL DEFAULT 0,
    forward_path  text     NOT NULL,
    stage         smallint NOT NULL,              -- 0 accepted 1 behind 2 waiting 3 sending 4 settled
    since_ms      bigint   NOT NULL,
    is_summary    boolean  NOT NULL DEFAULT false,
    node          uuid,                           -- who reads it (stage 0) or sends it (stage 3)
    reading       text,                           -- JSON: read, and waiting for its turn to be decided
    message_id    text,
    source        text,
    rule          text,
    event         text,
    status        text,
    external_id   text COLLATE "C",
    title         text,
    escalate      boolean  NOT NULL DEFAULT false,
    urgency       smallint NOT NULL DEFAULT 0,
    not_before_ms bigint   NOT NULL DEFAULT 0,
    maybe_paged   boolean  NOT NULL DEFAULT false,
    attempts      integer  NOT NULL DEFAULT 0,
    leases        integer  NOT NULL DEFAULT 0,
    progress      text,
    outcome       text,
    reason        text,
    settled_ms    bigint,
    CHECK ((stage = 4) = (outcome IS NOT NULL AND settled_ms IS NOT NULL))
);
CREATE INDEX deliveries_unread ON deliveries (id) WHERE stage = 0 AND reading IS NULL;
CREATE INDEX deliveries_read ON deliveries (id) WHERE stage = 0 AND reading IS NOT NULL;
CREATE INDEX deliveries_due ON deliveries (team, urgency, not_before_ms, id) WHERE stage = 2;
CREATE INDEX deliveries_sending ON deliveries (node) WHERE stage = 3;
CREATE UNIQUE INDEX deliveries_turn ON deliveries (team, external_id)
    WHERE stage IN (2, 3) AND external_id IS NOT NULL;
CREATE INDEX deliveries_behind ON deliveries (team, external_id, id)
    WHERE stage = 1 AND external_id IS NOT NULL;
CREATE INDEX deliveries_of_ticket ON deliveries (external_id, team, id) WHERE external_id IS NOT NULL;
CREATE INDEX deliveries_by_message_id ON deliveries (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (id) WHERE outcome = 'dead-letter';

CREATE TABLE decisions (
    delivery bigint PRIMARY KEY,
    decision text   NOT NULL
);

CREATE TABLE attempts (
    delivery  bigint  NOT NULL,
    number    integer NOT NULL,
    at_ms     bigint  NOT NULL,
    took_ms   bigint  NOT NULL,
    transport text    NOT NULL,
    result    text    NOT NULL,
    answer    text    NOT NULL,
    PRIMARY KEY (delivery, number)
);

CREATE TABLE tickets (
    team        text COLLATE "C"    NOT NULL,
    external_id text COLLATE "C"    NOT NULL,
    state       text    NOT NULL,
    paged       boolean NOT NULL,
    changed_ms  bigint  NOT NULL,
    opened_by   bigint,
    title       text,
    storm       text,
    PRIMARY KEY (team, external_id)
);
CREATE INDEX tickets_unresolved ON tickets (changed_ms) WHERE state <> 'resolved';
CREATE INDEX tickets_resolved ON tickets (changed_ms) WHERE state = 'resolved';
CREATE INDEX tickets_of_storm ON tickets (team, storm) WHERE storm IS NOT NULL;

CREATE TABLE storms (
    team     text COLLATE "C" NOT NULL,
    source   text NOT NULL,
    recent   text NOT NULL,
    delivery bigint,
    summary  text,
    PRIMARY KEY (team, source)
);

-- Running totals. Each node adds to rows of its own, so that none waits for another's commit.
CREATE TABLE ledger (
    team  text COLLATE "C"   NOT NULL,
    entry text   NOT NULL,
    node  uuid   NOT NULL,
    total bigint NOT NULL,
    PRIMARY KEY (team, entry, node)
);

-- Bytes of the mails that are kept. Each node adds to a row of its own, and takes what it removes from
-- there, too: the sum counts.
CREATE TABLE kept (
    node  uuid   PRIMARY KEY,
    bytes bigint NOT NULL
);

CREATE TABLE marks (
    name  text   PRIMARY KEY,
    at_ms bigint NOT NULL
);
