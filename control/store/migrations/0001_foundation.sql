-- Times are microseconds since 1970. `data` is the model's own JSON; the columns beside it are what is looked for or must be unique.

CREATE TABLE counter (name TEXT PRIMARY KEY NOT NULL, value BIGINT NOT NULL);
INSERT INTO counter (name, value) VALUES ('generation', 0);

CREATE TABLE machine (
    id TEXT PRIMARY KEY NOT NULL,
    hostname TEXT NOT NULL UNIQUE,
    status BIGINT NOT NULL,
    pool TEXT NOT NULL,
    owner TEXT,
    enrolment TEXT UNIQUE,
    version BIGINT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX machine_status ON machine (status, hostname);
CREATE INDEX machine_pool ON machine (pool, hostname);
CREATE INDEX machine_owner ON machine (owner, hostname);

CREATE TABLE interface (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    machine TEXT NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
    mac TEXT NOT NULL UNIQUE
);
CREATE INDEX interface_machine ON interface (machine);

CREATE TABLE inventory (
    machine TEXT PRIMARY KEY NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
    at BIGINT NOT NULL,
    data TEXT NOT NULL
);

-- Operations and the log outlive the machines they are about.
CREATE TABLE operation (
    id TEXT PRIMARY KEY NOT NULL,
    machine TEXT,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    deadline BIGINT,
    idempotency_key TEXT UNIQUE,
    image TEXT,
    data TEXT NOT NULL
);
CREATE INDEX operation_machine ON operation (machine, id);
CREATE INDEX operation_state ON operation (state, id);
CREATE INDEX operation_deadline ON operation (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE span (
    operation TEXT NOT NULL REFERENCES operation (id) ON DELETE CASCADE,
    attempt TEXT NOT NULL,
    stage TEXT NOT NULL,
    at BIGINT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (operation, attempt, stage)
);

-- state: queued, started (until `due`), failed. What is done or superseded is deleted: the log has the record.
CREATE TABLE effect (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    machine TEXT NOT NULL REFERENCES machine (id) ON DELETE CASCADE,
    operation TEXT,
    effect TEXT NOT NULL,
    generation BIGINT NOT NULL,
    queued BIGINT NOT NULL,
    state TEXT NOT NULL,
    survives BIGINT NOT NULL,
    superseded BIGINT NOT NULL DEFAULT 0,
    due BIGINT NOT NULL,
    tries BIGINT NOT NULL DEFAULT 0,
    worker TEXT,
    error TEXT
);
CREATE INDEX effect_machine ON effect (machine, id);
CREATE INDEX effect_due ON effect (due) WHERE state <> 'failed';

CREATE TABLE log (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    at BIGINT NOT NULL,
    machine TEXT,
    operation TEXT,
    data TEXT NOT NULL
);
CREATE INDEX log_machine ON log (machine, id);
CREATE INDEX log_operation ON log (operation, id);

CREATE TABLE fabric (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE vlan (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    fabric BIGINT NOT NULL REFERENCES fabric (id),
    vid BIGINT NOT NULL,
    data TEXT NOT NULL,
    UNIQUE (fabric, vid)
);
CREATE TABLE subnet (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    vlan BIGINT NOT NULL REFERENCES vlan (id),
    name TEXT NOT NULL UNIQUE,
    data TEXT NOT NULL
);
CREATE INDEX subnet_vlan ON subnet (vlan);
CREATE TABLE ip_range (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    subnet BIGINT NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    data TEXT NOT NULL
);
CREATE INDEX ip_range_subnet ON ip_range (subnet);
CREATE TABLE address (
    subnet BIGINT NOT NULL REFERENCES subnet (id) ON DELETE CASCADE,
    ip BIGINT NOT NULL,
    kind TEXT NOT NULL,
    mac TEXT,
    machine TEXT REFERENCES machine (id) ON DELETE CASCADE,
    until BIGINT,
    updated BIGINT NOT NULL,
    PRIMARY KEY (subnet, ip)
);
CREATE INDEX address_machine ON address (machine);
-- A rack finds a reservation by its MAC address alone.
CREATE UNIQUE INDEX address_reserved ON address (mac) WHERE kind IN ('auto', 'sticky', 'static');

CREATE TABLE image (
    name TEXT PRIMARY KEY NOT NULL,
    id TEXT NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX image_id ON image (id);
CREATE INDEX operation_image ON operation (image) WHERE state = 'running';
CREATE TABLE boot_environment (
    architecture TEXT PRIMARY KEY NOT NULL,
    data TEXT NOT NULL
);

CREATE TABLE rack (
    id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL UNIQUE,
    joined BIGINT NOT NULL,
    seen BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    observation_sequence BIGINT NOT NULL,
    certificate TEXT NOT NULL
);

CREATE TABLE setting (key TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL);
CREATE TABLE token (
    name TEXT PRIMARY KEY NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT
);
CREATE TABLE secret (context TEXT PRIMARY KEY NOT NULL, sealed BLOB NOT NULL);
