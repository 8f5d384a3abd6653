ALTER TABLE runs ADD COLUMN known_scores INTEGER;
CREATE TABLE conditions (
    id INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE
);
CREATE TABLE scores (
    conditions INTEGER NOT NULL REFERENCES conditions (id) ON DELETE CASCADE,
    kept BLOB NOT NULL,
    accuracy REAL,
    divergence REAL,
    output_error REAL,
    scored_s REAL NOT NULL,
    PRIMARY KEY (conditions, kept)
) WITHOUT ROWID;
