"""Values that only the database refuses: each is named in the words of the request."""

import re

import pytest

from chalicelib import services
from chalicelib.db import Database
from chalicelib.errors import BadRequest
from chalicelib.ingest import load_data
from chalicelib.tables import HEROES
from tests.conftest import Configure
from tests.support.client import InProcess, as_stored, hero
from tests.support.differing_tables import OTHER, Tables, assert_mismatch
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.witness import Witness

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
        {"hero": "aÿ✨"},
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
    "a generated column that is out of range": (
        "ADD doubled BIGINT AS (IF(xp = 50, 9223372036854775807, 0) + 1) STORED",
        {"xp": 50},
        "",
        "a trigger or a generated column of the table cannot compute with it",
    ),
    "a generated column that takes no such date": (
        "ADD born DATE AS (STR_TO_DATE(IF(xp = 50, name, '2000-01-01'), '%Y-%m-%d')) STORED",
        {"xp": 50, "name": "Ada"},
        "",
        "a trigger or a generated column of the table cannot compute with it",
    ),
    "a generated column that takes no such JSON": (
        "ADD part TEXT AS (JSON_EXTRACT(IF(xp = 50, name, '{}'), '$.a')) STORED",
        {"xp": 50, "name": "Ada"},
        "",
        "a trigger or a generated column of the table cannot compute with it",
    ),
    "taken together": (
        "ADD UNIQUE one_each (power, xp)",
        {"power": "taken", "xp": 1},
        "",
        "another row has this value already (unique index one_each)",
    ),
}


def refused(name: str, database: Tables) -> tuple[str, dict[str, object], str, str]:
    change, wrong, column, reason = REFUSED[name]
    if name == "a check of a column" and not database.is_mariadb:
        return change, wrong, "", "CHECK constraint heroes_chk_1"  # MySQL does not name the column
    return change, wrong, column, reason


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_a_value_that_only_the_database_refuses_is_named_in_the_request(
    service: InProcess, database: Tables, name: str, use_cache: bool
) -> None:
    """Rows are written in another order than they came in, and in three statements."""
    change, wrong, column, reason = refused(name, database)
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


def test_a_new_row_with_a_generated_column_out_of_range_is_named(
    service: InProcess, database: Tables
) -> None:
    """The guards of an insert in one round trip fail with the same number."""
    database.query("ALTER TABLE heroes ADD doubled BIGINT AS (xp * 9223372036854775807) STORED")

    answer = service.write([hero(xp=1), hero(xp=2), hero(xp=0)])

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith("SQLS[1]: a trigger or a generated column")
    assert len(service.write([hero(xp=1), hero(xp=0)]).ids) == 2


TRIGGERS = {
    "its own number": (
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 30001, MESSAGE_TEXT = 'no heroes today'",
        (400, "BadRequest", "SQLS[0]: a trigger rejects this row: no heroes today"),
    ),
    "a number of the server": (
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'no heroes today'",
        (400, "BadRequest", "SQLS[0]: a trigger rejects this row: no heroes today"),
    ),
    "the number of a taken key": (
        "SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1062, MESSAGE_TEXT = 'no heroes today'",
        (400, "BadRequest", "SQLS[0]: a trigger rejects this row: no heroes today"),
    ),
    "a state that means that nothing was found": (
        "SIGNAL SQLSTATE '02000' SET MESSAGE_TEXT = 'no heroes today'",
        (400, "BadRequest", "SQLS[0]: a trigger rejects this row: no heroes today"),
    ),
    "no case": (
        "CASE NEW.hero WHEN 'nobody' THEN SET NEW.xp = 1; END CASE",
        (400, "BadRequest", "SQLS[0]: a trigger or a generated column of the table"),
    ),
    "a value where there are several": (
        "SET NEW.hero = (SELECT table_name FROM cache_generation)",
        (400, "BadRequest", "SQLS[0]: a trigger or a generated column of the table"),
    ),
    "values where there are several": (
        "SELECT table_name INTO @found FROM cache_generation",
        (400, "BadRequest", "SQLS[0]: a trigger or a generated column of the table"),
    ),
    "a missing function": (
        "SET NEW.xp = nobody(1)",
        (500, "ConfigurationError", "calls the function nobody, which is not there"),
    ),
    "a full disk": (
        "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'it is full'",
        (503, "DatabaseUnavailable", "it has no room left"),
    ),
    "a number that is out of range": (
        "SET NEW.xp = 9223372036854775807 + (NEW.xp IS NOT NULL)",
        (400, "BadRequest", "SQLS[0]: a trigger or a generated column of the table"),
    ),
    "a text for a number": (
        "SET NEW.xp = CAST(NEW.hero AS SIGNED)",
        (400, "BadRequest", "SQLS[0]"),
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


@pytest.mark.parametrize(
    ("number", "state"),
    [*((each, "45000") for each in (1062, 1213, 2006, 2013, 4031, 40001)), (40001, "22004")],
)
def test_the_number_that_a_trigger_chooses_means_nothing(
    service: InProcess, database: Tables, number: int, state: str
) -> None:
    """Also where the container has not seen the trigger. Some are those of a lost connection."""
    service.write([{"id": 7, **hero()}])
    for event in ("INSERT", "UPDATE"):
        database.query(
            f"CREATE TRIGGER judge_{event} BEFORE {event} ON heroes FOR EACH ROW"
            " IF NEW.color = 'blue' THEN SIGNAL SQLSTATE"
            f" '{state}' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'no blue heroes'; END IF"
        )

    for ids in ({}, {"id": 7}, {"id": 8}):
        answer = service.write([hero(), {**ids, **hero(color="blue")}])

        assert (answer.status, answer.error) == (400, "BadRequest"), answer.text
        assert answer.message.startswith("SQLS[1]: a trigger ")
    assert service.read([7, 8]).rows == [as_stored(7, hero())]


def test_what_is_taken_is_told_whatever_language_the_server_speaks(
    service: InProcess, database: Tables, configure: Configure
) -> None:
    """What an error is about stands in its words only."""
    database.query("ALTER TABLE heroes ADD UNIQUE (power)")
    database.query("SET GLOBAL lc_messages = 'de_DE'")
    try:
        configure(DB_NAME=OTHER)
        answer = service.write([hero(power="a"), hero(power="b"), hero(power="a")])
    finally:
        database.query("SET GLOBAL lc_messages = DEFAULT")

    assert (answer.status, answer.error) == (400, "BadRequest"), answer.text
    assert answer.message.startswith("SQLS[2].power: another row has this value already")


@pytest.mark.parametrize("name", REFUSED)
def test_a_load_of_what_the_database_refuses_is_refused_at_once(
    service: InProcess, database: Tables, name: str
) -> None:
    """Not tried again, and no row of it stays."""
    change, wrong, column, _ = refused(name, database)
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
