-- One row. last_booked never falls; last_detail is the newest id of a detail row.
CREATE TABLE ledger (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    incarnation TEXT    NOT NULL,
    last_booked INTEGER NOT NULL,
    last_detail INTEGER NOT NULL
) STRICT;

INSERT INTO ledger (id, incarnation, last_booked, last_detail) VALUES (1, lower(hex(randomblob(16))), 0, 0);

-- Who may write for a partition, and where it was left off in which stream.
CREATE TABLE partition (
    id       INTEGER PRIMARY KEY,
    fence    INTEGER NOT NULL,
    owner    TEXT    NOT NULL,
    stream   TEXT    NOT NULL,
    sequence INTEGER NOT NULL
) STRICT;

-- zone and pue are null while they are not known; a site is declared or only
-- heard of.
CREATE TABLE site (
    id         INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL UNIQUE,
    zone       TEXT,
    pue        TEXT,
    created_ms INTEGER NOT NULL,
    declared   INTEGER NOT NULL
) STRICT;

-- span is the greatest last_slot - first_slot of the node's details: it bounds
-- how far back a detail can start that reaches into a range.
CREATE TABLE node (
    id   INTEGER PRIMARY KEY,
    site INTEGER NOT NULL REFERENCES site (id),
    name TEXT    NOT NULL,
    span INTEGER NOT NULL,
    UNIQUE (site, name)
) STRICT;

-- project is the first that was heard of and may be corrected. Energy of a project
-- without a run is in a row without a name, one a project, which rollup tells
-- apart; it is empty for runs. The energy of neither has two empty names.
CREATE TABLE run (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    rollup  TEXT NOT NULL,
    project TEXT NOT NULL,
    labels  TEXT NOT NULL, -- a JSON object
    UNIQUE (name, rollup)
) STRICT;

CREATE INDEX run_by_project ON run (project);

CREATE TABLE account (
    id        INTEGER PRIMARY KEY,
    site      INTEGER NOT NULL REFERENCES site (id),
    run       INTEGER NOT NULL REFERENCES run (id),
    component TEXT    NOT NULL,
    modelled  INTEGER NOT NULL,
    UNIQUE (run, site, component, modelled)
) STRICT;

-- Energy in half-microjoules. STRICT is what refuses a sum that does not fit:
-- SQLite would turn it into a floating-point number, which this column cannot hold.
CREATE TABLE posting (
    account         INTEGER NOT NULL REFERENCES account (id),
    slot            INTEGER NOT NULL,
    booked          INTEGER NOT NULL,
    partition       INTEGER NOT NULL,
    energy          INTEGER NOT NULL,
    observed_ms     INTEGER NOT NULL,
    interpolated_ms INTEGER NOT NULL,
    missing_ms      INTEGER NOT NULL,
    PRIMARY KEY (account, slot, booked, partition)
) STRICT, WITHOUT ROWID;

CREATE TABLE series (
    id        INTEGER PRIMARY KEY,
    node      INTEGER NOT NULL REFERENCES node (id),
    device    TEXT    NOT NULL,
    component TEXT    NOT NULL,
    workload  TEXT    NOT NULL,
    run       INTEGER NOT NULL REFERENCES run (id),
    modelled  INTEGER NOT NULL,
    account   INTEGER NOT NULL REFERENCES account (id),
    UNIQUE (node, device, component, workload, run, modelled)
) STRICT;

CREATE INDEX series_by_account ON series (account);

-- Over which time a series was read: its first and last tick. Apart from the
-- series because it moves with every batch and must stay small.
CREATE TABLE series_window (
    series        INTEGER PRIMARY KEY REFERENCES series (id),
    first_ms      INTEGER NOT NULL,
    last_ms       INTEGER NOT NULL,
    closed_ms     INTEGER NOT NULL, -- 0: open
    period_ms     INTEGER NOT NULL,
    clip_start_ms INTEGER NOT NULL,
    clip_end_ms   INTEGER NOT NULL,
    booked        INTEGER NOT NULL
) STRICT;

-- ranges are uvarints: first less the end before, last less first. import… are
-- null for spools. superseded: a newer epoch replaced what this one posted.
CREATE TABLE producer (
    id              INTEGER PRIMARY KEY,
    site            INTEGER NOT NULL REFERENCES site (id),
    producer        BLOB    NOT NULL,
    epoch           INTEGER NOT NULL, -- of 64 bits, read as signed
    floor           INTEGER NOT NULL,
    ranges          BLOB    NOT NULL,
    import_id       TEXT,
    import_content  BLOB,
    import_last     INTEGER,
    import_replace  INTEGER,
    superseded      INTEGER NOT NULL,
    UNIQUE (site, producer, epoch)
) STRICT;

CREATE TABLE producer_refused (
    producer INTEGER NOT NULL REFERENCES producer (id),
    reason   TEXT    NOT NULL,
    count    INTEGER NOT NULL,
    PRIMARY KEY (producer, reason)
) STRICT, WITHOUT ROWID;

-- What one batch posted. sign is -1 for the negation of a replaced one. parts is
-- described in detail.go.
CREATE TABLE detail (
    id         INTEGER PRIMARY KEY,
    node       INTEGER NOT NULL REFERENCES node (id),
    producer   INTEGER NOT NULL REFERENCES producer (id),
    sequence   INTEGER NOT NULL,
    first_slot INTEGER NOT NULL,
    last_slot  INTEGER NOT NULL,
    booked     INTEGER NOT NULL,
    sign       INTEGER NOT NULL,
    import     INTEGER NOT NULL,
    parts      BLOB    NOT NULL
) STRICT;

CREATE INDEX detail_by_node ON detail (node, first_slot);
-- Only imports are replaced.
CREATE INDEX detail_by_import ON detail (producer) WHERE import = 1;

-- The spans over which a producer read the devices of a node; see meter.go.
CREATE TABLE meter (
    node     INTEGER NOT NULL REFERENCES node (id),
    producer BLOB    NOT NULL,
    spans    BLOB    NOT NULL,
    PRIMARY KEY (node, producer)
) STRICT, WITHOUT ROWID;

CREATE TABLE rejected (
    site   INTEGER NOT NULL REFERENCES site (id),
    reason TEXT    NOT NULL,
    day    INTEGER NOT NULL, -- of the commit: Unix seconds / 86400
    count  INTEGER NOT NULL,
    PRIMARY KEY (site, reason, day)
) STRICT, WITHOUT ROWID;
