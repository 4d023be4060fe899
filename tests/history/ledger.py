"""The truth: every committed version of every hero, in the order of the commits.

Triggers note each change of a row in the transaction that makes it, while it holds the row's lock.
So notes of one row are numbered in the order of its commits, and those of a transaction that was
undone are undone with it. A write is known by its token, a delete by its idempotency key.
"""

from typing import NamedTuple

from chalicelib.tables import FORMS
from local.servers import MariaDB
from tests.support.pages import CREATE

# Rows without a key get ids from here on, so never an id that the clients use themselves.
FIRST_NEW_ID = 1000
# Whose counters clients increment.
PRODUCTS = range(1, 4)
# Whose write-behind counters they increment. All have one title.
PAGES, TITLE = range(1, 4), "news"

_NOTED = "INSERT INTO ledger (id, token, xp, operation) VALUES"
_TRIGGERS = ("noted_insert", "noted_update", "noted_delete", "noted_claim", "noted_count")
_STATEMENTS = (
    *(f"DROP TRIGGER IF EXISTS {name}" for name in _TRIGGERS),
    "DROP TABLE IF EXISTS ledger",
    "CREATE TABLE ledger (note BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, id INT UNSIGNED,"
    " token VARCHAR(255), xp INT, operation VARCHAR(255)) ENGINE = InnoDB",
    f"CREATE TRIGGER noted_insert AFTER INSERT ON heroes FOR EACH ROW"
    f" {_NOTED} (NEW.id, NEW.name, NEW.xp, NULL)",
    f"CREATE TRIGGER noted_update AFTER UPDATE ON heroes FOR EACH ROW"
    f" {_NOTED} (NEW.id, NEW.name, NEW.xp, NULL)",
    f"CREATE TRIGGER noted_delete AFTER DELETE ON heroes FOR EACH ROW"
    f" {_NOTED} (OLD.id, NULL, NULL, @operation)",
    "DROP TABLE IF EXISTS counts",
    "CREATE TABLE counts (note BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, id INT UNSIGNED,"
    " value INT, amount INT) ENGINE = InnoDB",
    "CREATE TRIGGER noted_count AFTER UPDATE ON products FOR EACH ROW INSERT INTO counts"
    " (id, value, amount) VALUES (NEW.ProductId, NEW.QuantityInStock,"
    " NEW.QuantityInStock - OLD.QuantityInStock)",
    "CREATE TRIGGER noted_claim AFTER INSERT ON idempotency FOR EACH ROW"
    " SET @operation = NEW.idempotency_key",
)


class Note(NamedTuple):
    """A version of row `id`; without a token: the row went, by delete `operation`."""

    id: int
    token: str | None
    xp: int | None
    operation: str | None


def open_ledger(server: MariaDB) -> None:
    """Empty tables, and everything noted from now on."""
    for statement in _STATEMENTS:
        server.query(statement)
    emptied = ("heroes", "idempotency", "ledger", "products", "applied_deltas")
    for table in (*emptied, "watched", "watched_ranges", "sync_lease", "sync_runs"):
        server.query(f"DELETE FROM {table}")
    server.query("TRUNCATE ledger")
    for id in PRODUCTS:
        server.query("INSERT INTO products VALUES (%s, 'Lamp', '', 0, 0)", [id])
    for form in FORMS:
        server.query(
            "INSERT INTO watched (table_name, row_key, form, direction)"
            " VALUES ('products', '*', %s, 'to_cache')",
            [form],
        )
    server.query("DROP TABLE IF EXISTS pages")
    server.query(CREATE)
    for nr in PAGES:
        server.query("INSERT INTO pages VALUES (%s, %s, 0, 0, 0)", [nr, TITLE])
    server.query(f"ALTER TABLE heroes AUTO_INCREMENT = {FIRST_NEW_ID}")


class Count(NamedTuple):
    """The counter of product `id` had `amount` added, and is `value`."""

    id: int
    value: int
    amount: int


def read_counts(server: MariaDB) -> list[Count]:
    rows = server.query("SELECT id, value, amount FROM counts ORDER BY note")
    return [Count(*row) for row in rows]


def read_products(server: MariaDB) -> dict[int, int]:
    return dict(server.query("SELECT ProductId, QuantityInStock FROM products"))


def read_pages(server: MariaDB) -> dict[int, int]:
    return dict(server.query("SELECT nr, views FROM pages"))


def read_ledger(server: MariaDB) -> list[Note]:
    rows = server.query("SELECT id, token, xp, operation FROM ledger ORDER BY note")
    return [Note(*row) for row in rows]


def read_table(server: MariaDB) -> dict[int, tuple[int, str]]:
    """The heroes there are: (xp, token) by id."""
    return {id: (xp, name) for id, xp, name in server.query("SELECT id, xp, name FROM heroes")}
