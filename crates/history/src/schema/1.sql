CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    metrics TEXT,
    directory TEXT NOT NULL,
    status TEXT NOT NULL,
    started TEXT NOT NULL,
    started_s REAL NOT NULL,
    wall_s REAL,
    scene_file TEXT,
    scene TEXT NOT NULL,
    seed INTEGER,
    agent TEXT,
    reward TEXT,
    scheduler TEXT,
    device TEXT,
    precision TEXT,
    program TEXT,
    build TEXT,
    instructions TEXT,
    candidates_scored INTEGER,
    policy TEXT
);
CREATE TABLE networks (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    macs INTEGER,
    params INTEGER,
    activation_bytes INTEGER,
    UNIQUE (name, content)
);
CREATE TABLE layers (
    network INTEGER NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    shape TEXT NOT NULL,
    PRIMARY KEY (network, place)
);
CREATE TABLE tasks (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    network INTEGER NOT NULL REFERENCES networks (id),
    dataset TEXT NOT NULL,
    dataset_content TEXT,
    UNIQUE (run, name)
);
CREATE INDEX tasks_of_network ON tasks (network);
CREATE TABLE budgets (
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    ratio REAL,
    max INTEGER,
    PRIMARY KEY (task, kind)
);
CREATE TABLE groups (
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    name TEXT NOT NULL,
    channels INTEGER NOT NULL,
    kept INTEGER NOT NULL,
    PRIMARY KEY (task, place)
);
CREATE TABLE walks (
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    agent TEXT NOT NULL,
    walk INTEGER NOT NULL,
    noise_free INTEGER NOT NULL,
    cached INTEGER NOT NULL,
    is_best INTEGER NOT NULL,
    reward REAL NOT NULL,
    accuracy REAL,
    divergence REAL,
    output_error REAL,
    macs INTEGER NOT NULL,
    widths TEXT NOT NULL,
    search_s REAL,
    PRIMARY KEY (task, place)
) WITHOUT ROWID;
CREATE TABLE results (
    task INTEGER NOT NULL REFERENCES tasks (id) ON DELETE CASCADE,
    agent TEXT NOT NULL,
    is_control INTEGER NOT NULL,
    walk INTEGER,
    candidates_scored INTEGER,
    macs INTEGER NOT NULL,
    params INTEGER,
    activation_bytes INTEGER,
    reward_accuracy REAL,
    test_accuracy_original REAL,
    test_accuracy REAL,
    test_accuracy_after_polish REAL,
    test_accuracy_after_tuning REAL,
    test_output_error REAL,
    PRIMARY KEY (task, is_control, agent)
);
CREATE TABLE certificates (
    task INTEGER PRIMARY KEY REFERENCES tasks (id) ON DELETE CASCADE,
    file TEXT NOT NULL,
    blake3 TEXT NOT NULL,
    text TEXT NOT NULL
);
