-- The database, the table heroes and its rows, made by hand. From the project's folder:
--
--     mysql --local-infile=1 -h HOST -u USER -p < seed/by_hand.sql
--
-- For MariaDB 10.6 and later, MySQL 8 and Aurora MySQL 3. Safe to run again: a row takes the place of the one that has its id.
-- The service's own tables come from seed/schema.sql. The cache of a running service does not notice rows that are loaded
-- here: upload the file to the bucket instead (docs/ingest.md).

CREATE DATABASE IF NOT EXISTS by_hand CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
USE by_hand;

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

-- From a file of this machine. Where LOCAL is forbidden, set local_infile = 1 on the server.
LOAD DATA LOCAL INFILE 'seed/heroes.csv' REPLACE
-- On Aurora from S3: take this line instead of the one above, with your bucket. The cluster needs a role that may read it.
-- LOAD DATA FROM S3 's3://BUCKET/heroes.csv' REPLACE
    INTO TABLE heroes CHARACTER SET utf8mb4
    FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '"' ESCAPED BY ''
    LINES TERMINATED BY '\n'
    (id, hero, power, name, xp, color);
SHOW WARNINGS;

SELECT * FROM heroes ORDER BY id LIMIT 5;
