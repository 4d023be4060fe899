-- Who the functions are to the database: users that may use its rows and change no table. A token of IAM lets them in, over
-- TLS; where DatabaseLogin is secret, `make infra` gives them the passwords of their secrets instead.
-- Applied again it changes nothing. For Aurora MySQL 3; the tables are in seed/schema.sql.

CREATE USER IF NOT EXISTS 'herocache'@'%' IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS' REQUIRE SSL;

CREATE USER IF NOT EXISTS 'herocache_ingest'@'%' IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS' REQUIRE SSL;

-- TRIGGER shows whether a table has triggers; without it the service reads back each row that it writes.
GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON herocache.* TO 'herocache'@'%';

-- Temporary tables: INGEST_ENGINE=aurora checks a file in one; both engines merge from one.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES, TRIGGER ON herocache.* TO 'herocache_ingest'@'%';

-- LOAD DATA FROM S3, with the role of the cluster; from the login on.
GRANT AWS_LOAD_S3_ACCESS TO 'herocache_ingest'@'%';

SET DEFAULT ROLE AWS_LOAD_S3_ACCESS TO 'herocache_ingest'@'%';
