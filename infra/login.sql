-- Who the functions are to the database: a user without a password, let in by a token of IAM, over TLS.
-- Applied again it changes nothing. For Aurora MySQL 3; the tables are in seed/schema.sql.

CREATE USER IF NOT EXISTS 'herocache'@'%' IDENTIFIED WITH AWSAuthenticationPlugin AS 'RDS' REQUIRE SSL;

-- Temporary tables: INGEST_ENGINE=aurora checks a file in one; both engines merge from one. TRIGGER
-- shows whether a table has triggers; without it the service reads back each row that it writes.
GRANT SELECT, INSERT, UPDATE, DELETE, CREATE TEMPORARY TABLES, TRIGGER ON herocache.* TO 'herocache'@'%';

-- LOAD DATA FROM S3, with the role of the cluster; from the login on.
GRANT AWS_LOAD_S3_ACCESS TO 'herocache'@'%';

SET DEFAULT ROLE AWS_LOAD_S3_ACCESS TO 'herocache'@'%';
