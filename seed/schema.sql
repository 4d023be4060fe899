-- Every table herocache reads and writes. Applied to an empty database it creates them all; applied again it changes nothing.
-- For MariaDB 10.6 and later, MySQL 8 and Aurora MySQL 3.

CREATE TABLE IF NOT EXISTS heroes (
    id    INT UNSIGNED NOT NULL AUTO_INCREMENT,
    hero  VARCHAR(255) NOT NULL,
    power VARCHAR(255) NOT NULL,
    name  VARCHAR(255) NOT NULL,
    xp    INT          NOT NULL,
    color VARCHAR(255) NOT NULL,
    PRIMARY KEY (id),
    INDEX heroes_xp (xp)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS products (
    ProductId       INT UNSIGNED NOT NULL AUTO_INCREMENT,
    ProductName     VARCHAR(255) NOT NULL,
    Description     VARCHAR(255) NOT NULL,
    QuantityInStock INT          NOT NULL,
    Price           INT          NOT NULL,
    PRIMARY KEY (ProductId)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

CREATE TABLE IF NOT EXISTS employees (
    EmpId   VARCHAR(255) NOT NULL,
    EmpName VARCHAR(255) NOT NULL,
    PRIMARY KEY (EmpId)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The generation that a table's cached rows live under: raising it makes all of them unreachable at once.
-- It is a row of the database, so that it can change in the same transaction as the rows it speaks for.
CREATE TABLE IF NOT EXISTS cache_generation (
    table_name VARCHAR(64)     NOT NULL,
    generation BIGINT UNSIGNED NOT NULL,
    enabled    TINYINT         NOT NULL,
    server     VARCHAR(64)     NOT NULL DEFAULT '', -- the Redis whose entries it speaks of, ':', their incarnation; '': none yet
    retired_at DATETIME(6)     NOT NULL DEFAULT '2000-01-01', -- when one that was in use was raised, UTC
    PRIMARY KEY (table_name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The first one is the time in milliseconds: where this table is dropped and made again, no number comes back
-- that cached rows may still be stored under. In UTC: local time goes back by an hour once a year.
INSERT IGNORE INTO cache_generation (table_name, generation, enabled)
VALUES ('heroes', TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000, 1),
    ('products', TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000, 1),
    ('employees', TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000, 1);

-- Rows whose public Redis keys other clients use: for them a row and its public key are brought in step.
CREATE TABLE IF NOT EXISTS watched (
    table_name VARCHAR(64)  NOT NULL,
    row_key    VARCHAR(255) NOT NULL,                -- '*': every row
    form       VARCHAR(8)   NOT NULL DEFAULT 'json', -- of the public key: 'json', 'hash'
    direction  VARCHAR(16)  NOT NULL,                -- 'to_cache', 'to_database'; until the next run 'ended' (its public keys are to be deleted), 'left' (to a watch on every row)
    seen       CHAR(16)     CHARACTER SET ascii NULL, -- digest of the row as both sides had it last
    unfinished VARCHAR(64)  CHARACTER SET ascii NULL, -- fingerprints of the public key that a run has set, and not kept as seen
    synced_at  DATETIME(6)  NULL,                    -- UTC
    beginning  BIGINT UNSIGNED NULL DEFAULT 0,       -- a number for each time the watch begins or turns; NULL once it is recorded what both sides have since
    row_then   CHAR(16)     CHARACTER SET ascii NULL, -- until then: digest of the row just before
    PRIMARY KEY (table_name, row_key, form)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- For a watch on every row: the digests of a range of rows, behind after_key and up to that of the next range.
CREATE TABLE IF NOT EXISTS watched_ranges (
    table_name VARCHAR(64)  NOT NULL,
    form       VARCHAR(8)   NOT NULL,
    after_key  VARCHAR(255) NOT NULL, -- '': from the first row on
    direction  VARCHAR(16)  NOT NULL,
    seen       MEDIUMTEXT   CHARACTER SET ascii NOT NULL, -- JSON: the keys, and their digests in one text
    unfinished MEDIUMTEXT   CHARACTER SET ascii NULL,     -- the same with fingerprints of public keys
    PRIMARY KEY (table_name, form, after_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- The run that is under way, and its fencing token: who has an earlier one can write nothing.
CREATE TABLE IF NOT EXISTS sync_lease (
    name       VARCHAR(16)     NOT NULL,
    token      BIGINT UNSIGNED NOT NULL,
    holder     CHAR(16)        CHARACTER SET ascii NOT NULL,
    expires_at DATETIME(6)     NOT NULL, -- UTC
    turns      BIGINT UNSIGNED NOT NULL DEFAULT 0, -- how often watches turned or ended: a step of a run commits nothing behind one
    PRIMARY KEY (name)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What became of each run.
CREATE TABLE IF NOT EXISTS sync_runs (
    id                   BIGINT UNSIGNED NOT NULL,       -- its fencing token
    started_at           DATETIME(6)     NOT NULL,       -- UTC, as is finished_at
    finished_at          DATETIME(6)     NULL,
    outcome              VARCHAR(16)     NOT NULL,       -- 'running', 'done', 'failed', 'superseded'
    to_cache_looked      BIGINT UNSIGNED NOT NULL DEFAULT 0,
    to_cache_changed     BIGINT UNSIGNED NOT NULL DEFAULT 0,
    to_cache_reported    BIGINT UNSIGNED NOT NULL DEFAULT 0,
    to_database_looked   BIGINT UNSIGNED NOT NULL DEFAULT 0,
    to_database_changed  BIGINT UNSIGNED NOT NULL DEFAULT 0,
    to_database_reported BIGINT UNSIGNED NOT NULL DEFAULT 0,
    details              MEDIUMTEXT      NOT NULL,       -- JSON: conflicts and values that no column takes
    PRIMARY KEY (id)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Ranges of rows that a run has handed to the function sync_range. Number 0 is what the run did itself.
CREATE TABLE IF NOT EXISTS sync_ranges (
    run        BIGINT UNSIGNED NOT NULL,
    number     INT UNSIGNED    NOT NULL,
    work       TEXT            NOT NULL, -- JSON: which rows
    after_key  VARCHAR(255)    NOT NULL, -- what is left of them is behind this key
    holder     CHAR(16)        CHARACTER SET ascii NOT NULL DEFAULT '',
    expires_at DATETIME(6)     NOT NULL DEFAULT '2000-01-01', -- until then it is the holder's, UTC
    outcome    VARCHAR(16)     NOT NULL, -- 'waiting', 'done'
    did        MEDIUMTEXT      NOT NULL, -- JSON: what was looked at, changed and reported so far
    PRIMARY KEY (run, number)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Write-behind counters: how much of the running totals in Redis is in the row already. Also of rows that were deleted, so that
-- what was counted for them is not added to another row with their key.
CREATE TABLE IF NOT EXISTS applied_deltas (
    table_name VARCHAR(64)   NOT NULL,
    row_key    VARCHAR(255)  NOT NULL,
    applied    VARCHAR(1000) CHARACTER SET ascii NOT NULL, -- epoch, number of increments, ' column=total' for each counter
    PRIMARY KEY (table_name, row_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What became of each uploaded file, written in the same transaction as its rows: by bucket and key the last upload.
CREATE TABLE IF NOT EXISTS ingest_log (
    bucket        VARCHAR(63)     CHARACTER SET ascii NOT NULL,
    object_key    VARBINARY(1024) NOT NULL,
    version       VARCHAR(1024)   CHARACTER SET ascii NOT NULL, -- '' in a bucket without versions
    etag          VARCHAR(128)    CHARACTER SET ascii NOT NULL,
    sequencer     VARCHAR(64)     CHARACTER SET ascii NOT NULL, -- S3's: tells which of two uploads of a key is later
    table_name    VARCHAR(64)     NOT NULL,
    status        VARCHAR(16)     NOT NULL, -- 'loaded', 'refused'; '' while the first one is under way
    row_count     BIGINT UNSIGNED NOT NULL,
    refused_count BIGINT UNSIGNED NOT NULL,
    reason        TEXT            NOT NULL, -- why the whole file was rejected
    started_at    DATETIME(6)     NOT NULL, -- UTC, as is finished_at
    finished_at   DATETIME(6)     NOT NULL,
    PRIMARY KEY (bucket, object_key)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- Answers already given, so that a retried write with the same key gets the first one's answer.
CREATE TABLE IF NOT EXISTS idempotency (
    idempotency_key VARCHAR(255) NOT NULL,
    fingerprint     CHAR(64)     NOT NULL, -- SHA-256 of the request
    answer          MEDIUMTEXT   NOT NULL,
    claimed_at      DATETIME     NOT NULL, -- UTC; forgotten after a day
    PRIMARY KEY (idempotency_key),
    INDEX idempotency_claimed_at (claimed_at)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;

-- What other clients of the database changed, as the triggers in seed/triggers.sql record it: a row for each changed row.
-- The service takes these entries out of the cache, and then deletes the record.
CREATE TABLE IF NOT EXISTS changed_entries (
    id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
    table_name VARCHAR(64)     NOT NULL,
    entries    MEDIUMTEXT      NOT NULL, -- JSON: by column the values of the entries that show or showed the row
    changed_at DATETIME(6)     NOT NULL, -- UTC
    is_shown   TINYINT         NOT NULL DEFAULT 0, -- 1: the entries have left the cache; the sync still needs the record
    PRIMARY KEY (id),
    INDEX changed_entries_left (table_name, is_shown)
) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_bin;
