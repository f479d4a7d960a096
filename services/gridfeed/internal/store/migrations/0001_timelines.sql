-- One row a timeline. The figures at the end follow from its intervals; they are kept
-- so that a list of zones does not read them all.
CREATE TABLE timeline (
    id                INTEGER PRIMARY KEY,
    subject           TEXT    NOT NULL,
    signal            INTEGER NOT NULL,
    source            TEXT    NOT NULL,
    product           TEXT    NOT NULL,
    attribution       TEXT    NOT NULL,
    first_recorded_ms INTEGER NOT NULL,
    revisions         INTEGER NOT NULL,
    start_slot        INTEGER NOT NULL, -- of the intervals with a value; start = end: none
    end_slot          INTEGER NOT NULL,
    UNIQUE (subject, signal, source, product)
) STRICT;

-- Append only. value is a decimal number in the unit of the signal, null when the
-- publisher took the interval back; raw_value is the publisher's own number in
-- raw_unit, null when it is value itself. The least integer, as a moment, is since ever.
CREATE TABLE interval (
    timeline    INTEGER NOT NULL REFERENCES timeline (id),
    start_slot  INTEGER NOT NULL,
    revision    INTEGER NOT NULL CHECK (revision > 0),
    end_slot    INTEGER NOT NULL CHECK (end_slot > start_slot),
    value       TEXT,
    quality     INTEGER NOT NULL,
    known_ms    INTEGER NOT NULL,
    recorded_ms INTEGER NOT NULL,
    raw_value   TEXT,
    raw_unit    TEXT,
    PRIMARY KEY (timeline, start_slot, revision)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER interval_is_never_changed BEFORE UPDATE ON interval
BEGIN SELECT RAISE(ABORT, 'intervals are append only'); END;

CREATE TRIGGER interval_is_never_deleted BEFORE DELETE ON interval
BEGIN SELECT RAISE(ABORT, 'intervals are append only'); END;

-- What an operator declared instead of the default chain, and when that was recorded.
-- entries is a JSON array of {source, product, max_age_ms}; empty: the default again.
CREATE TABLE chain (
    subject     TEXT    NOT NULL,
    signal      INTEGER NOT NULL,
    recorded_ms INTEGER NOT NULL,
    entries     TEXT    NOT NULL,
    PRIMARY KEY (subject, signal, recorded_ms)
) STRICT, WITHOUT ROWID;

-- The latest moment that was given out; one row.
CREATE TABLE clock (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    recorded_ms INTEGER NOT NULL
) STRICT;

INSERT INTO clock (id, recorded_ms) VALUES (1, 0);
