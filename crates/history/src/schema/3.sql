ALTER TABLE runs ADD COLUMN finished INTEGER;
UPDATE runs SET finished = id WHERE status IN ('finished', 'over_budget');
CREATE TABLE curves (
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    channels INTEGER NOT NULL,
    widths TEXT NOT NULL,
    errors TEXT NOT NULL,
    weight REAL NOT NULL,
    PRIMARY KEY (task, place)
);
