"""Tables that differ from their declaration: an error names table and remedy, or answers are right.

Each test has a database of its own on the test's server, and changes the tables in it.
"""

import json
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib import services
from chalicelib.cache import entry_commands
from chalicelib.cache.entry_commands import probe
from chalicelib.cache.keys import BUCKETS
from chalicelib.db import Database, schema
from chalicelib.errors import BadRequest
from chalicelib.ingest import load_data, load_from_s3_statements
from chalicelib.rows.lazy_loading import MISSES_TO_EXPECT_ONE
from chalicelib.tables import EMPLOYEES, HEROES, OWN_NAMES, NotAsDeclared, Row, Table, tables_with
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support.client import ROOT, Answer, InProcess, as_stored, hero, heroes
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.topologies import wait_until
from tests.support.witness import Witness

OTHER = "differing"
OWN_TABLES = (
    *("cache_generation", "changed_entries", "idempotency", "ingest_log"),
    *("watched", "watched_ranges", "sync_lease", "sync_runs", "sync_ranges", "applied_deltas"),
)
SUPERHEROES = (
    "CREATE TABLE superheroes (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, hero VARCHAR(20) NULL,"
    " power VARCHAR(20) NULL, name VARCHAR(20) NULL, xp INT UNSIGNED, color VARCHAR(20) NULL)"
)


class Tables:
    """Of the database that the service uses now."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self._witness.query(sql)

    def mend(self, text: str) -> None:
        """Run the statements that a text recommends, up to what the service is to be sent."""
        for statement in text.partition("; then send ")[0].split("; "):
            self.query(statement)

    def apply_schema(self) -> None:
        script = (ROOT / "seed" / "schema.sql").read_text(encoding="utf-8")
        for statement in re.sub(r"--.*", "", script).split(";"):
            if statement.strip():
                self.query(statement)

    def give_cache(self) -> None:
        """As an earlier start of the service would have done."""
        self._witness.give_cache_to(self._witness.server)


@pytest.fixture
def database(
    service: InProcess, witness: Witness, mariadb: MariaDB, configure: Configure
) -> Iterator[Tables]:
    """With all tables as they are declared; the service uses it and knows nothing of it."""
    witness.query(f"CREATE DATABASE {OTHER}")
    try:
        witness.query(f"GRANT ALL ON {OTHER}.* TO '{mariadb.user}'@'127.0.0.1'")
        witness.query(f"USE {OTHER}")
        tables = Tables(witness)
        tables.apply_schema()
        tables.give_cache()
        configure(DB_NAME=OTHER)
        yield tables
    finally:
        witness.query(f"DROP DATABASE {OTHER}")
        witness.query(f"REVOKE ALL ON {OTHER}.* FROM '{mariadb.user}'@'127.0.0.1'")
        witness.query(f"USE {mariadb.database}")


def assert_mismatch(answer: Answer, *words: str) -> str:
    """The statement that mends it, where the answer has one."""
    assert (answer.status, answer.error) == (500, "SchemaMismatch"), answer.text
    for word in words:
        assert word in answer.message
    assert_tells_nothing_internal(answer)
    return answer.message.partition(": ")[2]


# Everything that may be done to heroes, with the cache and without.
REQUESTS = [
    *[
        {**request, "USE_CACHE": use_cache}
        for use_cache in (True, False)
        for request in (
            {"REQUEST": "read", "SQLS": [1]},
            {"REQUEST": "read", "SQLS": [7], "BY": "xp"},
            {"REQUEST": "write", "SQLS": [hero(xp=7)]},
            {"REQUEST": "write", "SQLS": [{"id": 1, **hero(xp=7)}]},
        )
    ],
    {"REQUEST": "delete", "SQLS": [1]},
]


ERRORS = {
    "a missing table": ("DROP TABLE heroes", ["no table heroes", "schema.sql"]),
    "a missing column": ("ALTER TABLE heroes DROP xp", ["heroes has no column xp"]),
    "DECIMAL": ("ALTER TABLE heroes MODIFY xp DECIMAL(10,2) NOT NULL", ["xp is DECIMAL(10,2)"]),
    "DOUBLE": ("ALTER TABLE heroes MODIFY xp DOUBLE NOT NULL", ["heroes.xp is DOUBLE"]),
    "text for an integer": (
        "ALTER TABLE heroes MODIFY xp VARCHAR(9) NOT NULL",
        ["heroes.xp is VARCHAR(9), declared as an integer"],
    ),
    "DATETIME": (
        "ALTER TABLE heroes MODIFY power DATETIME NOT NULL",
        ["heroes.power is DATETIME, declared as a string"],
    ),
    "bytes": ("ALTER TABLE heroes MODIFY hero VARBINARY(99) NOT NULL", ["heroes.hero is VARBIN"]),
    "CHAR": ("ALTER TABLE heroes MODIFY hero CHAR(99) NOT NULL", ["heroes.hero is CHAR(99)"]),
    "an integer for text": ("ALTER TABLE heroes MODIFY hero INT NOT NULL", ["hero is INT(11)"]),
    "computed": (
        "ALTER TABLE heroes MODIFY xp INT AS (LENGTH(hero)) STORED",
        ["heroes.xp is computed by the database"],
    ),
    "no AUTO_INCREMENT": (
        "ALTER TABLE heroes MODIFY id INT UNSIGNED NOT NULL DEFAULT 0",
        ["heroes.id is not AUTO_INCREMENT"],
    ),
    "no id": (
        "ALTER TABLE heroes DROP PRIMARY KEY, DROP id",
        ["heroes has no column id"],
    ),
    "no id but a text for a key": (
        "ALTER TABLE heroes DROP id, DROP PRIMARY KEY, ADD PRIMARY KEY (name)",
        ["heroes has no column id"],
    ),
    "an id of another name": (
        "ALTER TABLE heroes CHANGE id nr INT UNSIGNED NOT NULL AUTO_INCREMENT",
        ["heroes has no column id"],
    ),
    "an id that is no key": (
        "ALTER TABLE heroes MODIFY id INT UNSIGNED NOT NULL, DROP PRIMARY KEY",
        ["heroes.id is not AUTO_INCREMENT"],
    ),
    "an id of another type that is no key": (
        "ALTER TABLE heroes MODIFY id VARCHAR(9) NOT NULL, DROP PRIMARY KEY",
        ["heroes.id is VARCHAR(9)"],
    ),
    "another key": (
        "ALTER TABLE heroes DROP PRIMARY KEY, ADD PRIMARY KEY (id, xp)",
        ["heroes.id is not the primary key"],
    ),
    "no transactions": ("ALTER TABLE heroes ENGINE = MyISAM", ["MyISAM", "failed write"]),
    "two at once": (
        "ALTER TABLE heroes DROP xp, MODIFY power DATE NOT NULL",
        ["no column xp", "heroes.power is DATE"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_table_that_cannot_be_served_is_told_by_whatever_comes_first(
    service: InProcess, database: Tables, configure: Configure, witness: Witness, name: str
) -> None:
    change, words = ERRORS[name]
    database.query(change)

    for request in REQUESTS:
        configure(DB_NAME=OTHER)  # a cold service, which is asked something else first
        assert_mismatch(service.post(request), *words)
    assert witness.entries() == {}
    health = service.health("?deep=1")
    assert (health.status, health.fields["status"]) == (503, "down")
    assert health.fields["database"]["ok"] is False
    assert words[0] in health.fields["database"]["error"]


@pytest.mark.parametrize("name", [name for name in ERRORS if name != "two at once"])
def test_the_statement_in_the_words_mends_the_table_and_the_service_goes_on(
    service: InProcess, database: Tables, name: str
) -> None:
    database.query(ERRORS[name][0])
    mend = assert_mismatch(service.read([1]))

    database.apply_schema() if "schema.sql" in mend else database.query(mend)
    for problem in service.health("?deep=1").fields["database"].get("problems", ()):
        database.mend(problem.partition(": ")[2])  # a new column has no index

    [id] = service.write([hero(xp=7)]).ids
    for use_cache in (True, True, False):
        assert service.read([id], use_cache).rows == [as_stored(id, hero(xp=7))]
        assert service.read([7], use_cache, BY="xp").rows == [as_stored(id, hero(xp=7))]
    assert "problems" not in service.health("?deep=1").fields["database"]


def test_a_view_is_no_table(service: InProcess, database: Tables) -> None:
    """Its rows change with another table's, which the cache of the view cannot know."""
    database.query("RENAME TABLE heroes TO of_old")
    database.query("CREATE VIEW heroes AS SELECT * FROM of_old")

    for request in REQUESTS:
        assert_mismatch(service.post(request), "heroes is a view")


def test_a_text_key_must_tell_upper_from_lower_case(service: InProcess, database: Tables) -> None:
    database.query("ALTER TABLE employees MODIFY EmpId VARCHAR(99) COLLATE utf8mb4_general_ci")
    database.query("INSERT INTO employees VALUES ('A', 'Ada')")

    mend = assert_mismatch(service.delete(["a"], TABLE="employees"), "utf8mb4_general_ci")
    assert database.query("SELECT EmpId FROM employees") == [("A",)]

    database.query(mend)
    assert service.delete(["a"], TABLE="employees").deleted == []
    assert service.read(["A"], TABLE="employees").rows == [{"EmpId": "A", "EmpName": "Ada"}]


CHANGED = ("DECIMAL", "DATETIME", "bytes", "a missing column", "a missing table")


@pytest.mark.parametrize("comes_first", ["read", "delete"])
@pytest.mark.parametrize("name", CHANGED)
def test_a_table_that_changes_while_it_is_used_is_told_too(
    service: InProcess, database: Tables, witness: Witness, name: str, comes_first: str
) -> None:
    """By the encoder, by the lookup that a change concerns, or by the server's own error. A delete
    that meets none of these is right."""
    rows = [{"id": id, **hero(power="2026-01-01", xp=7)} for id in (1, 2)]
    service.write(rows)
    assert len(service.read([1, 2], use_cache=False).rows) == len(rows)
    witness.forget_cached()
    change, words = ERRORS[name]
    database.query(change)

    if comes_first == "delete":
        answer = service.delete([1])
        if name not in ("DATETIME", "bytes"):
            assert_mismatch(answer, *words)
    for use_cache in (False, True):
        assert_mismatch(service.read([2], use_cache), *words)
    assert_mismatch(service.write([hero()]), *words)
    assert witness.entries() == {}
    mend = assert_mismatch(service.read([2]))

    database.apply_schema() if "schema.sql" in mend else database.query(mend)
    service.write(rows)
    for use_cache in (True, False):
        assert service.read([2], use_cache).rows == rows[1:]


# --- what can be lived with -----------------------------------------------------------------------


@pytest.mark.usefixtures("lasting_generations")
def test_a_table_made_by_an_older_script_is_served_and_its_limits_are_told(
    service: InProcess,
    database: Tables,
    configure: Configure,
    caplog: pytest.LogCaptureFixture,
    witness: Witness,
) -> None:
    for table in ("heroes", "products", "employees"):
        database.query(f"DROP TABLE {table}")
    database.query(SUPERHEROES)
    configure(DB_NAME=OTHER, DB_TABLE="superheroes")

    ids = service.write([*heroes(3), {"id": 40, **hero(xp=7)}]).ids

    assert ids == [41, 42, 43, 40]
    for use_cache in (True, True, False):
        assert service.read([40], use_cache).rows == [as_stored(40, hero(xp=7))]
        assert service.read([7], use_cache, BY="xp").rows == [as_stored(40, hero(xp=7))]
        assert service.read([40], use_cache, TABLE="superheroes").rows[0]["id"] == 40
        assert_mismatch(service.read([40], use_cache, TABLE="heroes"), "no table heroes")
    assert any(key.startswith(b"{superheroes.0}:") for key in witness.entries())
    with witness.spent() as spent:
        service.read([40])
    assert (spent.statements, spent.commands) == (0, {"mget": 1})
    assert service.delete([40, 44]).deleted == [40]
    health = service.health("?deep=1")
    assert (health.status, health.fields["status"]) == (200, "ok")
    nullable, narrow, unindexed, *others = _problems_of(health, "superheroes")
    assert nullable.startswith("superheroes allows NULL in hero, power, name, xp, color; a row")
    assert "hero (VARCHAR(20))" in narrow
    assert "xp (INT(10) UNSIGNED)" in narrow
    assert "CREATE INDEX" in unindexed
    assert len(others) == 3, "the declared tables are not there"
    database.query("INSERT INTO superheroes VALUES (50, NULL, 'light', 'Ada', NULL, NULL)")
    for mend in (nullable.partition(": ")[2], unindexed.partition(": ")[2]):
        database.mend(mend)
    assert service.read([50]).rows == [as_stored(50, hero(hero="", xp=0, color=""))]
    assert len(_problems_of(service.health("?deep=1"), "superheroes")) == 4
    for problem in (nullable, narrow, unindexed):
        assert caplog.text.count(problem) == 1


def _problems_of(health: Answer, table: str) -> list[str]:
    problems: list[str] = health.fields["database"]["problems"]
    return sorted(problems, key=lambda problem: not problem.startswith(table))


def test_a_healthy_first_use_warns_of_nothing(
    service: InProcess, database: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="herocache.db"):
        for request in REQUESTS:
            assert service.post(request).status == 200
        service.read(["e"], TABLE="employees")

    assert [each.message for each in caplog.records if each.name == "herocache.db"] == []
    assert "problems" not in service.health("?deep=1").fields["database"]


@pytest.mark.parametrize("name", ["order", "2024", "my$heroes"])
def test_a_table_of_the_settings_may_have_any_plain_name(
    service: InProcess, database: Tables, configure: Configure, name: str
) -> None:
    database.query(f"CREATE TABLE `{name}` LIKE heroes")
    configure(DB_NAME=OTHER, DB_TABLE=name)

    [id] = service.write([hero(xp=5)]).ids
    [other] = service.write([hero(name="Bea")], TABLE="heroes").ids

    assert service.write([{"id": id, **hero(xp=6)}]).ids == [id]
    for use_cache in (True, False):
        assert service.read([6], use_cache, BY="xp").rows == [as_stored(id, hero(xp=6))]
        rows = service.read([other], use_cache, TABLE="heroes").rows
        assert [row["name"] for row in rows] == ["Bea"]
    assert service.delete([id]).deleted == [id]


@pytest.mark.parametrize("name", ["a b", "x`y", "heroes;", "a.b", "é", "x" * 65, "Heroes", "%s"])
def test_a_name_that_could_mean_more_than_a_table_is_refused(
    service: InProcess, configure: Configure, name: str
) -> None:
    configure(DB_TABLE=name)

    answer = service.read([1])

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message.startswith("DB_TABLE: ")


def test_the_services_own_missing_tables_are_named_with_what_makes_them(
    service: InProcess, database: Tables, configure: Configure
) -> None:
    database.query(SUPERHEROES)
    database.query("INSERT INTO superheroes VALUES (1, 'Nova', 'light', 'Ada', 10, 'red')")
    for table in (*OWN_TABLES, "heroes", "products", "employees"):
        database.query(f"DROP TABLE {table}")
    configure(DB_NAME=OTHER, DB_TABLE="superheroes")

    for answer in (service.read([1]), service.write([hero()]), service.delete([1])):
        assert_mismatch(answer, *OWN_TABLES, "< seed/schema.sql", "make infra")
    assert service.read([1], use_cache=False).rows == [as_stored(1, hero())]
    health = service.health("?deep=1")
    assert (health.status, health.fields["database"]["ok"]) == (503, False)
    assert "cache_generation" in health.fields["database"]["error"]

    database.apply_schema()
    database.query("DROP TABLE idempotency")
    assert service.read([1]).rows == [as_stored(1, hero())]
    keyed = {"REQUEST": "delete", "SQLS": [1], "IDEMPOTENCY_KEY": "k"}
    assert_mismatch(service.post(keyed), "idempotency")
    health = service.health("?deep=1")
    assert (health.status, health.fields["database"]["ok"]) == (200, True)
    assert any("idempotency" in problem for problem in health.fields["database"]["problems"])


def test_a_column_that_no_request_can_fill_stops_new_rows_only(
    service: InProcess, database: Tables
) -> None:
    [id] = service.write([hero(xp=7)]).ids
    database.query("ALTER TABLE heroes ADD publisher VARCHAR(9) NOT NULL")
    database.query("ALTER TABLE heroes ADD since DATETIME NOT NULL DEFAULT NOW(), ADD note TEXT")

    for use_cache in (True, False):
        assert service.read([id], use_cache).rows == [as_stored(id, hero(xp=7))]
    answer = service.write([hero()])
    mend = assert_mismatch(answer, "heroes.publisher is not declared")
    [problem] = service.health("?deep=1").fields["database"]["problems"]
    assert problem == answer.message

    database.query(mend.removeprefix("no row can be inserted without it: "))
    assert service.write([hero()]).status == 200


def test_own_tables_of_another_version_are_told(service: InProcess, database: Tables) -> None:
    service.read([1], use_cache=False)
    database.query("ALTER TABLE cache_generation DROP retired_at")

    assert_mismatch(service.write([hero()]), "cache_generation", "seed/schema.sql")


def test_the_cache_of_a_table_of_the_settings_comes_back_as_every_other(
    service: InProcess, database: Tables, configure: Configure, witness: Witness
) -> None:
    """Though the declared tables beside it are not there."""
    database.query("RENAME TABLE heroes TO superheroes")
    database.query("DROP TABLE products, employees")
    configure(DB_NAME=OTHER, DB_TABLE="superheroes")
    [id] = service.write([hero()]).ids
    database.query("UPDATE cache_generation SET enabled = 0, generation = generation + 1")
    services.container().rows._lazy_loading._generations.forget(
        services.container().cache.tables["superheroes"]
    )

    assert service.read([id]).rows == [as_stored(id, hero())]
    for thread in threading.enumerate():
        if thread.name == "recovery":
            thread.join(timeout=10)

    assert witness.generation("superheroes")[1], "it is in use again"


def test_every_bucket_of_a_table_of_the_settings_is_probed() -> None:
    """In a cluster each may be on another server."""
    tags = {command.tag for command in probe(tables_with("superheroes"), True)}

    assert {f"superheroes.{bucket}" for bucket in range(BUCKETS)} <= tags
    assert {f"heroes.{bucket}" for bucket in range(BUCKETS)} <= tags


def test_a_mend_keeps_what_else_was_said_of_a_column(service: InProcess, database: Tables) -> None:
    database.query(
        "ALTER TABLE heroes ADD `order` ENUM('Up', 'down') NOT NULL COMMENT 'it''s %s',"
        " MODIFY color VARCHAR(20) NULL DEFAULT 'it''s red' COMMENT 'of the cape',"
        " MODIFY xp INT NULL DEFAULT 5"
    )
    database.query("UPDATE heroes SET color = NULL, xp = NULL")

    for problem in service.health("?deep=1").fields["database"]["problems"]:
        if "room" not in problem:
            database.mend(problem.partition("without it: ")[2] or problem.partition(": ")[2])

    [problem] = service.health("?deep=1").fields["database"]["problems"]
    assert "room" in problem
    columns = database.query(
        "SELECT column_name, column_type, is_nullable, column_default, column_comment"
        f" FROM information_schema.columns WHERE table_schema = '{OTHER}'"
        " AND table_name = 'heroes' AND column_name IN ('order', 'color', 'xp')"
    )
    assert sorted(columns) == [
        ("color", "varchar(20)", "NO", "'it''s red'", "of the cape"),
        ("order", "enum('Up','down')", "YES", "NULL", "it's %s"),
        ("xp", "int(11)", "NO", "5", ""),
    ]


@pytest.mark.parametrize("name", [*OWN_NAMES, "Cache_Generation"])
def test_a_table_of_the_services_own_holds_no_rows_of_others(
    service: InProcess, configure: Configure, name: str
) -> None:
    configure(DB_TABLE=name)

    answer = service.read([1])

    assert (answer.status, answer.error) == (500, "ConfigurationError")
    assert answer.message.startswith(f"DB_TABLE: {name} is a table of the service's own")


def test_every_table_of_the_services_own_is_known_as_such() -> None:
    temporary = load_from_s3_statements.DROP[0].rpartition(" ")[2]
    assert {*OWN_TABLES, temporary} == {*schema.OWN_TABLES, temporary} == set(OWN_NAMES)


@pytest.mark.parametrize("request_", ["delete", "write", "keyed write"])
def test_a_text_key_that_no_longer_tells_cases_apart_is_told_at_the_next_change(
    service: InProcess, database: Tables, request_: str
) -> None:
    """The table was compared before somebody changed it."""
    of: dict[str, Any] = {"TABLE": "employees"}
    rows = [{"EmpId": "Zed", "EmpName": "Z"}, {"EmpId": "Ann", "EmpName": "A"}]
    service.write(rows, **of)
    database.query("ALTER TABLE employees MODIFY EmpId VARCHAR(99) COLLATE utf8mb4_general_ci")

    if request_ == "delete":
        answer = service.delete(["ZED"], **of)
    else:
        key: dict[str, Any] = {"IDEMPOTENCY_KEY": "k"} if request_ == "keyed write" else {}
        answer = service.write([{"EmpId": "ZED", "EmpName": "new"}], **of, **key)

    mend = assert_mismatch(answer, "EmpId takes 'a' and 'A' for one key")
    assert database.query("SELECT * FROM employees ORDER BY 1") == [("Ann", "A"), ("Zed", "Z")]
    database.query(mend)
    assert service.delete(["ZED"], **of).deleted == []


def test_a_stored_key_with_a_space_at_its_end_is_told_to_who_would_change_it(
    service: InProcess, database: Tables
) -> None:
    database.query("INSERT INTO employees VALUES ('Zed ', 'Z')")

    for use_cache in (True, False):
        assert service.read(["Zed"], use_cache, TABLE="employees").missing == ["Zed"]
    assert_mismatch(service.delete(["Zed"], TABLE="employees"), "EmpId holds 'Zed '")
    assert database.query("SELECT * FROM employees") == [("Zed ", "Z")]


@pytest.mark.parametrize("use_cache", [True, False])
def test_an_id_that_no_request_can_name_is_not_given(
    service: InProcess, database: Tables, use_cache: bool
) -> None:
    [id] = service.write([hero()]).ids
    database.query("ALTER TABLE heroes MODIFY id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT")
    database.query("ALTER TABLE heroes AUTO_INCREMENT = 4294967295")

    for _ in range(2):
        answer = service.write([hero(xp=7), hero(xp=7)], use_cache)
        assert (answer.status, answer.error) == (400, "BadRequest"), answer.text
        assert (
            "no free id above the highest one is left; give each row its id, up to 4294967295"
            in answer.message
        )
    assert service.read([7], use_cache, BY="xp").missing == [7]
    loads = Database(services.container().settings, for_loads=True)
    columns = HEROES.columns[1:]
    texts = [["h", "p", "n", "1", "c"]]
    with pytest.raises(BadRequest, match="no free id"):
        loads.transact(lambda transaction: load_data.load(transaction, HEROES, columns, [texts]))
    assert database.query("SELECT id FROM heroes") == [(id,)]
    [problem] = service.health("?deep=1").fields["database"]["problems"]
    assert problem.startswith("heroes.id is BIGINT(20) UNSIGNED, and requests take no id above")


def test_pages_go_on_behind_an_id_that_no_request_can_name(
    service: InProcess, database: Tables
) -> None:
    """Others put such rows there, and a read by a lookup shows them."""
    database.query("ALTER TABLE heroes MODIFY id BIGINT NOT NULL AUTO_INCREMENT")
    ids = [1, 5_000_000_000, 2**63 - 1]
    for id in ids:
        database.query(f"INSERT INTO heroes VALUES ({id}, 'h', 'p', 'n', 7, 'c')")

    after, found = 0, []
    while rows := service.read([7], BY="xp", LIMIT=1, AFTER=str(after)).rows:
        after = rows[0]["id"]
        found.append(after)

    assert found == ids


def test_a_far_id_is_refused_in_a_table_of_any_name(
    service: InProcess, database: Tables, configure: Configure
) -> None:
    database.query("CREATE TABLE `order` LIKE heroes")
    configure(DB_NAME=OTHER, DB_TABLE="order")

    answer = service.write([{"id": 4_000_000_000, **hero()}])

    assert (answer.status, "too few would be left" in answer.message) == (400, True), answer.text


# --- NULL -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "value"), [("power", "''"), ("xp", "0")])
def test_a_row_with_null_is_named_and_never_answered(
    service: InProcess, database: Tables, witness: Witness, column: str, value: str
) -> None:
    database.query(f"ALTER TABLE heroes MODIFY {column} {'INT' if value == '0' else 'VARCHAR(9)'}")
    service.write([{"id": 5, **hero()}, {"id": 6, **hero()}])
    database.query(f"UPDATE heroes SET {column} = NULL WHERE id = 6")
    witness.forget_cached()

    for use_cache in (True, False, True):
        answer = service.read([5, 6], use_cache)
        mend = assert_mismatch(answer, f"heroes.{column} is NULL", "id is 6")
        assert service.read([5], use_cache).rows == [as_stored(5, hero())]
    statement, _, request = mend.partition("for example ")[2].partition("; then send ")
    assert statement == f"UPDATE heroes SET {column} = {value} WHERE {column} IS NULL"
    assert service.read([0], BY="xp").missing == [0]

    database.query(statement)
    assert service.post(json.loads(request.partition(", or cached")[0])).status == 200
    assert len(service.read([0], BY="xp").rows) == (value == "0")
    for use_cache in (True, False):
        [row] = service.read([6], use_cache).rows
        assert json.dumps(row[column]) == value.replace("'", '"')


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_row_with_null_can_be_replaced_and_deleted(
    service: InProcess, database: Tables, use_cache: bool
) -> None:
    database.query("ALTER TABLE heroes MODIFY xp INT, MODIFY power VARCHAR(9)")
    for id in (5, 6):
        database.query(f"INSERT INTO heroes VALUES ({id}, 'h', NULL, 'n', NULL, 'c')")

    assert service.write([{"id": 5, **hero(xp=3)}], use_cache).ids == [5]
    assert service.delete([6]).deleted == [6]

    for read_cached in (True, False):
        assert service.read([5, 6], read_cached).rows == [as_stored(5, hero(xp=3))]
        assert service.read([3], read_cached, BY="xp").rows == [as_stored(5, hero(xp=3))]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("column", ["QuantityInStock", "Description"])
def test_a_row_with_null_is_not_counted(
    service: InProcess, database: Tables, witness: Witness, column: str, use_cache: bool
) -> None:
    kind = "VARCHAR(9)" if column == "Description" else "INT"
    database.query(f"ALTER TABLE products MODIFY {column} {kind}")
    values = {"ProductName": "p", "Description": "d", "QuantityInStock": 1, "Price": 1}
    service.write([values] * 2, TABLE="products")
    database.query(f"UPDATE products SET {column} = NULL WHERE ProductId = 2")
    before = witness.database_state()

    counted = [{"ProductId": id, "QuantityInStock": 1} for id in (1, 2)]
    fields = {"TABLE": "products", "SQLS": counted, "USE_CACHE": use_cache}
    answer = service.post({"REQUEST": "increment", **fields})

    assert_mismatch(answer, f"products.{column} is NULL", "ProductId is 2")
    assert witness.database_state() == before


@pytest.mark.parametrize("misses", [0, MISSES_TO_EXPECT_ONE])
def test_a_read_that_fails_lets_nobody_wait_for_its_rows(
    service: InProcess,
    database: Tables,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
    misses: int,
) -> None:
    monkeypatch.setattr(entry_commands, "LEASE_MILLISECONDS", 60_000)
    database.query("ALTER TABLE heroes MODIFY power VARCHAR(9)")
    service.write([{"id": 5, **hero()}, {"id": 6, **hero()}])
    database.query("UPDATE heroes SET power = NULL WHERE id = 6")
    witness.forget_cached()
    services.container().rows._lazy_loading._misses_in_a_row = misses

    assert_mismatch(service.read([5, 6]))

    wait_until(lambda: not witness.redis.keys("*:id:*"))


# --- values that only the database refuses --------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, object], str, str]] = {
    "too long": (
        "MODIFY hero VARCHAR(20) NOT NULL",
        {"hero": "x" * 30},
        ".hero",
        "expected at most 20 characters, got 30",
    ),
    "below the range": (
        "MODIFY xp INT UNSIGNED NOT NULL",
        {"xp": -5},
        ".xp",
        "expected an integer from 0 to 2147483647, got -5",
    ),
    "above the range": ("MODIFY xp TINYINT NOT NULL", {"xp": 128}, ".xp", "from -128 to 127"),
    "not in latin1": (
        "MODIFY hero VARCHAR(99) CHARACTER SET latin1 NOT NULL",
        {"hero": "a✨"},
        ".hero",
        "the column's character set does not have '✨'",
    ),
    "too many bytes": (
        "MODIFY hero TINYTEXT NOT NULL",
        {"hero": "é" * 200},
        ".hero",
        "the database does not take this value",
    ),
    "a check": ("ADD CONSTRAINT grown_up CHECK (xp < 50)", {"xp": 50}, "", "CHECK constraint grow"),
    "a check of a column": (
        "MODIFY xp INT NOT NULL CHECK (xp < 50)",
        {"xp": 50},
        ".xp",
        "CHECK constraint xp",
    ),
    "a foreign key": (
        "ADD FOREIGN KEY (color) REFERENCES employees (EmpId)",
        {"color": "blue"},
        ".color",
        "no row of employees has this value (foreign key)",
    ),
    "taken": ("ADD UNIQUE (power)", {"power": "taken"}, ".power", "another row has this value"),
    "taken, by an index that is called like another column": (
        "ADD UNIQUE name (power)",
        {"power": "taken"},
        ".power",
        "another row has this value already (unique index name)",
    ),
    "taken, with a value that looks like words of the server": (
        "ADD UNIQUE one (power)",
        {"power": "old' for key 'PRIMARY'"},
        ".power",
        "another row has this value already (unique index one)",
    ),
    "no partition": (
        "DROP INDEX heroes_xp PARTITION BY RANGE (id) (PARTITION low VALUES LESS THAN (1000))",
        {"id": 5000},
        "",
        "the table has no partition for this row",
    ),
    "taken together": (
        "ADD UNIQUE one_each (power, xp)",
        {"power": "taken", "xp": 1},
        "",
        "another row has this value already (unique index one_each)",
    ),
}


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_only_the_database_refuses_is_named_in_the_request(
    service: InProcess, database: Tables, name: str, use_cache: bool
) -> None:
    """Rows are written in another order than they came in, and in three statements."""
    change, wrong, column, reason = REFUSED[name]
    service.write([{"EmpId": "red", "EmpName": "Red"}], TABLE="employees")
    service.write([{"id": 9, **hero(power="taken", xp=1)}, {"id": 8, **hero(power="old", xp=2)}])
    service.write([{"id": 7, **hero(power="old' for key 'PRIMARY'", xp=2)}])
    database.query(f"ALTER TABLE heroes {change}")
    rows = [hero(power=f"p{i}", xp=i) for i in range(40)]
    rows[3]["id"], rows[7]["id"], rows[20]["id"] = 30, 8, 12
    before = database.query("SELECT * FROM heroes ORDER BY id")

    for place in (0, 3, 7, 20, 39):
        spoilt = [{**row, **wrong} if i == place else row for i, row in enumerate(rows)]
        answer = service.write(spoilt, use_cache)

        assert (answer.status, answer.error) == (400, "BadRequest"), answer.text
        assert answer.message.startswith(f"SQLS[{place}]{column}: "), answer.message
        assert reason in answer.message
        assert_tells_nothing_internal(answer)
        assert database.query("SELECT * FROM heroes ORDER BY id") == before

    assert len(service.write(rows, use_cache).ids) == len(rows)


def test_rows_of_one_request_that_exclude_each_other_are_named(
    service: InProcess, database: Tables
) -> None:
    database.query("ALTER TABLE heroes ADD UNIQUE (power)")
    rows = [hero(power=power) for power in ("a", "b", "c", "b")]

    answer = service.write(rows)

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith("SQLS[3].power: another row has this value already")
    assert database.query("SELECT * FROM heroes") == []


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize(
    "rows",
    [
        [hero(xp=50), hero(xp=1)],
        [{"id": 9, **hero(xp=50)}, {"id": 10, **hero(xp=1)}],
        [{"id": 8, **hero(xp=50)}, {"id": 9, **hero(xp=3)}],
        [hero(xp=50), {"id": 9, **hero(xp=1)}],
    ],
    ids=["new", "replaced", "given a key", "both"],
)
@pytest.mark.usefixtures("lasting_generations")
def test_what_a_rejected_write_fenced_can_be_cached_again_at_once(
    service: InProcess,
    database: Tables,
    witness: Witness,
    rows: list[dict[str, object]],
    use_cache: bool,
) -> None:
    service.write([{"id": 9, **hero(xp=1)}, {"id": 10, **hero(xp=1)}])
    database.query("ALTER TABLE heroes ADD CONSTRAINT grown_up CHECK (xp < 50)")
    service.write([hero(xp=2)])
    assert len(service.read([1], BY="xp").rows) == 2

    assert service.write(rows, use_cache).status == 400

    for request in ({"SQLS": [9, 10]}, {"SQLS": [1], "BY": "xp"}):
        for is_hit in (False, True):
            with witness.spent() as spent:
                answer = service.post({"REQUEST": "read", "USE_CACHE": True, **request})
            assert [row["id"] for row in answer.rows] == [9, 10]
            assert not (is_hit and spent.statements)


def test_a_null_that_a_lookup_would_show_keeps_no_other_row_from_being_written(
    service: InProcess, database: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    database.query("ALTER TABLE heroes MODIFY power VARCHAR(9)")
    service.write([{"id": 5, **hero(xp=7)}])
    database.query("UPDATE heroes SET power = NULL WHERE id = 5")

    [id] = service.write([hero(xp=7)]).ids

    assert service.read([id]).rows == [as_stored(id, hero(xp=7))]
    assert_mismatch(service.read([7], BY="xp"), "heroes.power is NULL", "id is 5")
    assert "a lookup of heroes is left to its next reader" in caplog.text


def test_a_row_that_others_refer_to_cannot_be_deleted(service: InProcess, database: Tables) -> None:
    rows = [{"EmpId": name, "EmpName": ""} for name in ("red", "blue", "green")]
    service.write(rows, TABLE="employees")
    service.write([hero(color="blue")])
    database.query("ALTER TABLE heroes ADD FOREIGN KEY (color) REFERENCES employees (EmpId)")

    answer = service.delete(["red", "green", "blue"], TABLE="employees")

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith("SQLS[2]: rows of another table refer to this one")
    assert len(service.read(["red", "blue", "green"], TABLE="employees").rows) == len(rows)


def test_a_trigger_says_what_it_refuses(service: InProcess, database: Tables) -> None:
    database.query(
        "CREATE TRIGGER judge BEFORE INSERT ON heroes FOR EACH ROW IF NEW.color = 'blue' THEN"
        " SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no blue heroes'; END IF"
    )

    answer = service.write([hero(), hero(color="blue")])

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message == "SQLS[1]: a trigger rejects this row: no blue heroes"


TRIGGERS = {
    "its own number": (
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 30001, MESSAGE_TEXT = 'no heroes today'",
        (400, "BadRequest", "SQLS[0]: a trigger rejects this row: no heroes today"),
    ),
    "a number of the server": (
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'no heroes today'",
        (400, "BadRequest", "SQLS[0]: a trigger rejects this row: no heroes today"),
    ),
    "NULL": ("SET NEW.hero = NULL", (400, "BadRequest", "SQLS[0].hero: a trigger gives it NULL")),
    "a missing table": (
        "INSERT INTO audit VALUES (1)",
        (
            500,
            "SchemaMismatch",
            "the database has no table audit, which a trigger of employees, heroes needs",
        ),
    ),
    "a missing column": (
        "INSERT INTO employees (Nobody) VALUES (1)",
        (500, "SchemaMismatch", "or a trigger names one that is not there"),
    ),
    "a key that is taken": (
        "INSERT INTO employees VALUES ('ada', '')",
        (503, "DatabaseUnavailable", "a trigger inserts a key that its table has already"),
    ),
}


@pytest.mark.parametrize("name", TRIGGERS)
def test_what_a_trigger_does_wrong_is_told(service: InProcess, database: Tables, name: str) -> None:
    body, (status, error, words) = TRIGGERS[name]
    service.write([{"EmpId": "ada", "EmpName": "Ada"}], TABLE="employees")
    database.query(f"CREATE TRIGGER wrong BEFORE INSERT ON heroes FOR EACH ROW {body}")

    answer = service.write([hero()])

    assert (answer.status, answer.error) == (status, error), answer.text
    assert words in answer.message
    assert_tells_nothing_internal(answer)
    assert database.query("SELECT * FROM heroes") == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_load_of_what_the_database_refuses_is_refused_at_once(
    service: InProcess, database: Tables, name: str
) -> None:
    """Not tried again, and no row of it stays."""
    change, wrong, column, _ = REFUSED[name]
    service.write([{"EmpId": "red", "EmpName": "Red"}], TABLE="employees")
    service.write([hero(power="taken", xp=1), hero(power="old' for key 'PRIMARY'")])
    database.query(f"ALTER TABLE heroes {change}")
    columns = HEROES.columns[1:] if "id" not in wrong else HEROES.columns
    rows = [{"id": 3, **hero(power="p1", xp=1)}, {"id": 4, **hero(power="p2", xp=2), **wrong}]
    column = "" if name.startswith("taken") else column  # the server names an index
    texts = [[str(row[column.name]) for column in columns] for row in rows]
    loads = Database(services.container().settings, for_loads=True)

    words = f"^heroes{re.escape(column)}: a row of the file is rejected"
    with pytest.raises(BadRequest, match=words):
        loads.transact(lambda transaction: load_data.load(transaction, HEROES, columns, [texts]))

    assert len(database.query("SELECT * FROM heroes")) == 2


def test_a_key_with_a_rejected_row_may_be_sent_again(service: InProcess, database: Tables) -> None:
    database.query("ALTER TABLE heroes MODIFY hero VARCHAR(20) NOT NULL")
    request = {"REQUEST": "write", "IDEMPOTENCY_KEY": "k", "SQLS": [hero(hero="x" * 30)]}

    assert service.post(request).status == 400
    assert service.post({**request, "SQLS": [hero()]}).status == 200


# --- the encoder and the declarations -------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 9), *[st.text()] * 3, st.integers(), st.text()), max_size=5)
)
def test_a_batch_is_encoded_as_each_row_by_itself_would_be(rows: list[Row]) -> None:
    encoded = HEROES.encode_many(rows)

    assert encoded == [HEROES.encode(row) for row in rows]
    names = [column.name for column in HEROES.columns]
    for row, text in zip(rows, encoded):
        assert json.loads(text) == dict(zip(names, row))


@pytest.mark.parametrize("wrong", [None, 1.0, True, b"x", [1], object()])
@pytest.mark.parametrize("position", range(len(HEROES.columns)))
def test_the_encoder_refuses_what_is_not_declared(position: int, wrong: Any) -> None:
    good: Row = (1, "Nova", "light", "Ada", 10, "red")
    bad: Row = tuple(wrong if i == position else value for i, value in enumerate(good))

    for rows in ([bad], [good, bad], [bad, good]):
        with pytest.raises(NotAsDeclared, match=f"heroes.{HEROES.columns[position].name} "):
            HEROES.encode_many(rows)


def test_a_string_for_an_integer_and_the_other_way_round_is_refused() -> None:
    for bad in ((1, 2, "light", "Ada", 10, "red"), (1, "Nova", "light", "Ada", "10", "red")):
        with pytest.raises(NotAsDeclared, match=r"(a string|an integer)$"):
            HEROES.encode(bad)


def test_a_lookup_that_names_no_column_cannot_be_declared() -> None:
    with pytest.raises(ValueError, match="heroes: the lookup XP names no column; there are id, "):
        replace(HEROES, lookups=("XP",))


def test_what_is_stored_may_stand_for_what_is_declared(
    service: InProcess, database: Tables
) -> None:
    """Narrower values, under the same keys of the cache."""
    assert services.container().database.as_stored(EMPLOYEES) == EMPLOYEES
    database.query("ALTER TABLE heroes MODIFY hero VARCHAR(20) CHARACTER SET utf8mb3 NOT NULL")
    database.query("ALTER TABLE heroes MODIFY xp TINYINT UNSIGNED NOT NULL")

    stored: Table = services.container().database.as_stored(HEROES)

    types = {column.name: column.type for column in stored.columns}
    assert types["hero"].takes_texts(["x" * 20, "ß\uffff"])
    assert not types["hero"].takes_texts(["x" * 21])
    assert not types["hero"].takes_texts(["x", "✨🌠"])
    assert types["xp"].takes_texts(["0", "255"])
    assert not types["xp"].takes_texts(["-1"])
    assert not types["xp"].takes_texts(["256"])
    for column, declared in zip(stored.columns, HEROES.columns):
        assert getattr(column.type, "width", 0) == getattr(declared.type, "width", 0)
    assert service.write([hero()]).status == 200
