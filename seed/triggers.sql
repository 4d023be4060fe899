-- Triggers that record what other clients of the database change, so that the service can tell its
-- cache. From the project's folder:
--
--     mysql -h HOST -u USER -p DATABASE < seed/triggers.sql
--
-- For MariaDB 10.6 and later, MySQL 8.0.29 and later, Aurora MySQL 3.05 and later. Applied again it
-- changes nothing. The table changed_entries is in seed/schema.sql. This file is written by
-- python -m seed.make_triggers, from the declarations in chalicelib/tables.py.

DELIMITER //

CREATE TRIGGER IF NOT EXISTS captured_insert_81160018ebf8 AFTER INSERT ON heroes FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('heroes', JSON_OBJECT('id', JSON_ARRAY(NEW.id + 0), 'xp', JSON_ARRAY(NEW.xp + 0)), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_update_1b003e196134 AFTER UPDATE ON heroes FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('heroes', JSON_OBJECT('id', JSON_ARRAY(OLD.id + 0, NEW.id + 0), 'xp', JSON_ARRAY(OLD.xp + 0, NEW.xp + 0)), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_delete_cded54ffb92a AFTER DELETE ON heroes FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('heroes', JSON_OBJECT('id', JSON_ARRAY(OLD.id + 0), 'xp', JSON_ARRAY(OLD.xp + 0)), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_insert_7cd1b7973542 AFTER INSERT ON products FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('products', JSON_OBJECT('ProductId', JSON_ARRAY(NEW.ProductId + 0)), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_update_34c10fe87a51 AFTER UPDATE ON products FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('products', JSON_OBJECT('ProductId', JSON_ARRAY(OLD.ProductId + 0, NEW.ProductId + 0)), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_delete_b517671ab737 AFTER DELETE ON products FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('products', JSON_OBJECT('ProductId', JSON_ARRAY(OLD.ProductId + 0)), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_insert_5ab57a70bdba AFTER INSERT ON employees FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('employees', JSON_OBJECT('EmpId', JSON_ARRAY(LEFT(CONVERT(NEW.EmpId USING utf8mb4), 255))), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_update_3348520325d4 AFTER UPDATE ON employees FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('employees', JSON_OBJECT('EmpId', JSON_ARRAY(LEFT(CONVERT(OLD.EmpId USING utf8mb4), 255), LEFT(CONVERT(NEW.EmpId USING utf8mb4), 255))), UTC_TIMESTAMP(6));
END IF//

CREATE TRIGGER IF NOT EXISTS captured_delete_e7f6c9f6cb45 AFTER DELETE ON employees FOR EACH ROW
IF @herocache_own IS NULL THEN
    INSERT INTO changed_entries (table_name, entries, changed_at)
    VALUES ('employees', JSON_OBJECT('EmpId', JSON_ARRAY(LEFT(CONVERT(OLD.EmpId USING utf8mb4), 255))), UTC_TIMESTAMP(6));
END IF//

DELIMITER ;
