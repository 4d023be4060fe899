"""Tables that differ from their declaration: an error names table and remedy, or answers are right.

Each test has a database of its own on the test's server, and changes the tables in it.
"""

import logging
import re
import threading
from typing import Any

import pytest

from app import sync
from chalicelib import services
from chalicelib.cache.entry_commands import probe
from chalicelib.cache.keys import BUCKETS
from chalicelib.db import Database, schema
from chalicelib.errors import BadRequest, SchemaMismatch
from chalicelib.ingest import load_data, load_from_s3_statements
from chalicelib.tables import HEROES, OWN_NAMES, TEMPORARY_NAMES, tables_with
from tests.conftest import Configure
from tests.support.client import Answer, InProcess, as_stored, hero, heroes
from tests.support.differing_tables import OTHER, SUPERHEROES, Tables, assert_mismatch
from tests.support.witness import Witness

OWN_TABLES = (
    *("cache_generation", "changed_entries", "idempotency", "ingest_log"),
    *("watched", "watched_ranges", "sync_lease", "sync_runs", "sync_ranges", "applied_deltas"),
)


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
    "an integer for text": ("ALTER TABLE heroes MODIFY hero INT NOT NULL", ["hero is INT"]),
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


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3", "latin2", "utf16"])
def test_a_text_key_in_another_character_set_is_told_and_mended(
    service: InProcess, database: Tables, charset: str
) -> None:
    """It could not be compared with a key that has a character which the set lacks."""
    database.query(f"ALTER TABLE employees MODIFY EmpId VARCHAR(99) COLLATE {charset}_bin")
    of: dict[str, Any] = {"TABLE": "employees"}
    for answer in (service.read(["😀"], **of), service.delete(["日本"], **of)):
        mend = assert_mismatch(answer, f"EmpId cannot be compared with every text ({charset}_bin)")

    database.query(mend)

    assert service.read(["😀"], **of).missing == ["😀"]
    assert service.write([{"EmpId": "😀", "EmpName": "x"}], **of).ids == ["😀"]
    assert service.delete(["😀", "日本"], **of).deleted == ["😀"]


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
    assert "trigger" not in service.read([2]).message

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
    assert re.search(r"xp \(INT(\(10\))? UNSIGNED\)", narrow)
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

    assert {record.name for record in caplog.records} <= {"herocache.redis"}
    assert max((record.levelno for record in caplog.records), default=0) < logging.WARNING
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


@pytest.mark.parametrize(("table", "column"), schema.ADDED_COLUMNS)
def test_a_table_that_an_older_version_made_is_told_with_what_adds_its_column(
    service: InProcess, database: Tables, table: str, column: str
) -> None:
    watch = {"REQUEST": "watch", "TABLE": "products", "SQLS": ["*"], "DIRECTION": "to_cache"}
    assert service.post(watch).status == 200
    before = database.query(f"SHOW CREATE TABLE {table}")
    database.query(f"ALTER TABLE {table} DROP {column}")

    problems = service.health("?deep=1").fields["database"]["problems"]
    [problem] = [text for text in problems if f"table {table} is of an older version" in text]
    if table == schema.GENERATIONS:
        assert_mismatch(service.read([1]), problem)
    else:
        with pytest.raises(SchemaMismatch, match=re.escape(problem)):
            sync({"table": "products"}, None)

    database.mend(problem.partition(": ")[2])
    [(_, mended)] = database.query(f"SHOW CREATE TABLE {table}")
    assert sorted(mended.split()) == sorted(before[0][1].split())
    assert sync({"table": "products"}, None)["outcome"] == "done"


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
    database.query("ALTER TABLE cache_generation DROP enabled")

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
    red, nothing, integer = "it's red", None, "int"
    if database.is_mariadb:
        red, nothing, integer = "'it''s red'", "NULL", "int(11)"
    assert sorted(columns) == [
        ("color", "varchar(20)", "NO", red, "of the cape"),
        ("order", "enum('Up','down')", "YES", nothing, "it's %s"),
        ("xp", integer, "NO", "5", ""),
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
    statements = [*load_from_s3_statements.CREATE, *load_data.stage(HEROES, HEROES.columns)]
    made = re.findall(r"CREATE TEMPORARY TABLE (\w+)", " ".join(text for text, _ in statements))
    assert sorted(made) == sorted(TEMPORARY_NAMES)
    assert {*OWN_TABLES, *made} == {*schema.OWN_TABLES, *made} == set(OWN_NAMES)


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
    words = r"heroes\.id is BIGINT(\(20\))? UNSIGNED, and requests take no id above"
    assert re.match(words, problem)


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
