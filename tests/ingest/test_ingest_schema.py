"""Files for tables that take less than they are declared for: a row is rejected, not the file."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from chalicelib.db import Statement
from chalicelib.errors import ConfigurationError, SchemaMismatch
from chalicelib.handlers import entry_points
from chalicelib.ingest import load_data
from chalicelib.ingest import service as ingest_service
from chalicelib.tables import Column, Table
from local.servers import MariaDB
from tests.conftest import Configure
from tests.db import conftest
from tests.support.aurora import emulated_load_from_s3
from tests.support.bucket import UploadBucket
from tests.support.client import InProcess, hero
from tests.support.differing_tables import OTHER, SUPERHEROES, Tables
from tests.support.witness import Witness

database = conftest.database  # the fixture

Load = Callable[[str], Mapping[str, Any]]
NARROW_ROWS = (
    "1,Nova,light,Ada,10,red\n"
    f"2,{'x' * 21},light,Bo,20,blue\n"
    "3,Onyx,frost,Cy,-1,blue\n"
    f"4,{'ñ' * 20},frost,Di,2147483647,blue\n"
)
OLD_ROW = "INSERT INTO heroes (id, hero, power, name, xp, color) VALUES (5,'five','a','b',1,'c')"
both_engines = pytest.mark.parametrize("engine", ["mysql", "aurora"])
of_any_size = pytest.mark.parametrize(
    "max_small_bytes", [0, ingest_service.MAX_SMALL_BYTES], ids=["big", "small"]
)


@pytest.fixture
def load(
    database: Tables,
    configure: Configure,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    max_small_bytes: int,
    engine: str,
) -> Load:
    """The summary of a file of that size, loaded by that engine."""
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", max_small_bytes)
    configure(DB_NAME=OTHER, INGEST_ENGINE=engine)

    def load(content: str) -> Mapping[str, Any]:
        with emulated_load_from_s3():
            [summary] = entry_points.ingest(bucket.put("a.csv", content))
        return summary

    return load


@pytest.mark.usefixtures("load")
@both_engines
@of_any_size
def test_a_value_too_large_for_the_real_column_rejects_its_row_of_a_file(
    database: Tables,
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    engine: str,
) -> None:
    database.query(SUPERHEROES)
    configure(DB_NAME=OTHER, DB_TABLE="superheroes", INGEST_ENGINE=engine)
    event = bucket.put("a.csv", NARROW_ROWS)

    with emulated_load_from_s3():
        [summary] = entry_points.ingest(event)
        [again] = entry_points.ingest(event)

    assert (summary["status"], summary["table"]) == ("loaded", "superheroes")
    assert (summary["rows"], summary["refused"]) == (again["rows"], again["refused"]) == (2, 2)
    told = (bucket.rejected("a.csv") or "").splitlines()[1:]
    assert [line.split(",")[:2] for line in told] == [["2", "hero"], ["3", "xp"]]
    assert "expected at most 20 characters, got 21" in told[0]
    assert summary["first_rows"] == service.read([1, 4]).rows


@both_engines
@pytest.mark.parametrize("max_small_bytes", [0])
def test_a_character_that_the_real_column_does_not_have_rejects_its_row_of_a_file(
    database: Tables, load: Load
) -> None:
    database.query("ALTER TABLE heroes MODIFY color VARCHAR(255) CHARACTER SET latin1 NOT NULL")

    summary = load("1,a,b,c,1,é\n2,a,b,c,1,光\n3,a,b,c,1,\n")

    assert (summary["rows"], summary["refused"]) == (2, 1)
    assert [row["color"] for row in summary["first_rows"]] == ["é", ""]


@of_any_size
def test_a_file_for_a_table_that_does_not_fit_is_tried_again_once_that_is_mended(
    database: Tables,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    max_small_bytes: int,
) -> None:
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", max_small_bytes)
    database.query("ALTER TABLE heroes MODIFY xp DECIMAL(10,2) NOT NULL")
    event = bucket.put("a.csv", NARROW_ROWS)

    with pytest.raises(SchemaMismatch, match=r"heroes\.xp is DECIMAL"):
        entry_points.ingest(event)

    database.query("ALTER TABLE heroes MODIFY xp INT NOT NULL")
    [summary] = entry_points.ingest(event)
    assert (summary["status"], summary["rows"]) == ("loaded", 4)


@both_engines
@of_any_size
def test_a_row_that_only_a_constraint_refuses_refuses_the_file_in_words(
    database: Tables, load: Load
) -> None:
    database.query("ALTER TABLE heroes ADD CONSTRAINT low CHECK (xp < 100)")

    summary = load("1,a,b,c,1,d\n2,a,b,c,200,d\n")

    assert (summary["status"], summary["rows"]) == ("refused", 0)
    assert "CHECK constraint low" in summary["reason"]
    assert database.query("SELECT * FROM heroes") == []


@both_engines
@of_any_size
@pytest.mark.parametrize("ids", ["7,8", "5,8", ","], ids=["new", "existing", "given"])
def test_a_unique_index_refuses_the_file_and_removes_no_other_row(
    database: Tables, load: Load, ids: str
) -> None:
    database.query("ALTER TABLE heroes ADD UNIQUE KEY only (hero)")
    database.query(OLD_ROW)
    database.query(OLD_ROW.replace("5,'five'", "6,'taken'"))
    first, second = (f"{number}," * bool(number) for number in ids.split(","))

    summary = load(f"{first}taken,a,b,1,c\n{second}free,a,b,1,c\n")

    assert (summary["status"], summary["rows"]) == ("refused", 0)
    assert "unique index only" in summary["reason"]
    assert database.query("SELECT id, hero FROM heroes") == [(5, "five"), (6, "taken")]


@both_engines
@of_any_size
def test_rows_that_exist_keep_the_values_of_columns_that_are_not_declared(
    database: Tables, load: Load
) -> None:
    database.query("ALTER TABLE heroes ADD notes VARCHAR(20) NOT NULL DEFAULT 'none'")
    database.query(OLD_ROW)
    database.query("UPDATE heroes SET notes = 'precious'")

    summary = load("9,nine,a,b,2,c\n5,first,a,b,2,c\n5,again,a,b,2,c\n")

    assert (summary["status"], summary["rows"]) == ("loaded", 3)
    assert [row["hero"] for row in summary["first_rows"]] == ["nine", "again"]
    assert database.query("SELECT id, hero, xp, notes FROM heroes") == [
        (5, "again", 2, "precious"),
        (9, "nine", 2, "none"),
    ]


@both_engines
@of_any_size
def test_rows_that_refer_to_one_that_exists_stay(database: Tables, load: Load) -> None:
    database.query(OLD_ROW)
    database.query(
        "CREATE TABLE deeds (id INT PRIMARY KEY, hero INT UNSIGNED,"
        " FOREIGN KEY (hero) REFERENCES heroes (id) ON DELETE CASCADE)"
    )
    database.query("INSERT INTO deeds VALUES (1, 5)")

    assert load("5,other,a,b,2,c\n6,six,a,b,2,c\n")["status"] == "loaded"

    assert database.query("SELECT hero FROM heroes") == [("other",), ("six",)]
    assert database.query("SELECT * FROM deeds") == [(1, 5)]


@both_engines
@of_any_size
def test_a_row_that_exists_is_deleted_for_no_trigger(database: Tables, load: Load) -> None:
    database.query(OLD_ROW)
    database.query("CREATE TABLE deleted (id INT PRIMARY KEY)")
    database.query(
        "CREATE TRIGGER bury AFTER DELETE ON heroes FOR EACH ROW"
        " INSERT INTO deleted VALUES (OLD.id)"
    )

    assert load("5,other,a,b,2,c\n")["status"] == "loaded"

    assert database.query("SELECT hero FROM heroes") == [("other",)]
    assert database.query("SELECT * FROM deleted") == []


@both_engines
@pytest.mark.parametrize("max_small_bytes", [0])
def test_a_user_without_the_right_to_make_a_temporary_table_is_told_so(
    database: Tables, load: Load, mariadb: MariaDB
) -> None:
    database.query("ALTER TABLE heroes ADD notes INT")
    database.query(f"REVOKE CREATE TEMPORARY TABLES ON {OTHER}.* FROM '{mariadb.user}'@'127.0.0.1'")

    with pytest.raises(ConfigurationError, match="GRANT CREATE TEMPORARY TABLES"):
        load("5,other,a,b,2,c\n")


@both_engines
@of_any_size
def test_the_first_rows_are_what_a_trigger_made_of_them(database: Tables, load: Load) -> None:
    database.query(OLD_ROW)
    for event in ("INSERT", "UPDATE"):
        database.query(
            f"CREATE TRIGGER {event}_low BEFORE {event} ON heroes FOR EACH ROW"
            " SET NEW.xp = LEAST(NEW.xp, 100)"
        )

    first_rows = load("5,other,a,b,500,c\n6,six,a,b,7,c\n")["first_rows"]

    assert [(row["id"], row["hero"], row["xp"]) for row in first_rows] == [
        (5, "other", 100),
        (6, "six", 7),
    ]


@both_engines
@pytest.mark.parametrize("max_small_bytes", [0])
def test_rows_go_straight_into_a_table_as_it_is_declared(
    database: Tables, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_data, "STAGED", "no such table")
    database.query(OLD_ROW)

    assert load("5,other,a,b,2,c\n6,six,a,b,2,c\n")["status"] == "loaded"


@both_engines
@pytest.mark.parametrize("max_small_bytes", [0])
def test_a_load_runs_again_where_a_key_that_it_found_missing_is_there_after_all(
    database: Tables, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.query("ALTER TABLE heroes ADD notes INT")
    merge = load_data.merge
    late = [OLD_ROW]

    def merge_late(table: Table, columns: Sequence[Column]) -> list[Statement]:
        update, *others = merge(table, columns)
        insert_of_another = [(late.pop(), ())] if late else []
        return [update, *insert_of_another, *others]

    monkeypatch.setattr(load_data, "merge", merge_late)

    assert load("5,other,a,b,2,c\n6,six,a,b,2,c\n")["status"] == "loaded"

    assert database.query("SELECT id, hero FROM heroes") == [(5, "other"), (6, "six")]


@pytest.mark.parametrize("is_merged", [False, True], ids=["", "by a temporary table"])
@both_engines
@of_any_size
def test_an_id_that_would_use_up_the_others_refuses_a_file(
    database: Tables,
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    max_small_bytes: int,
    engine: str,
    is_merged: bool,
) -> None:
    """The counter of the database does not come back when a load is undone."""
    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", max_small_bytes)
    configure(DB_NAME=OTHER, INGEST_ENGINE=engine)
    if is_merged:
        database.query("ALTER TABLE heroes ADD note VARCHAR(9) NOT NULL DEFAULT ''")
    near = "".join(f"{id},near,p,n,4,c\n" for id in (5, 1_000_000_000, *range(6, 2_000)))

    with emulated_load_from_s3():
        [far] = entry_points.ingest(
            bucket.put("incoming/far.csv", near + "4294967295,far,p,n,4,c\n")
        )
        assert (far["status"], database.query("SELECT id FROM heroes")) == ("refused", [])
        assert "more than 1000000000 above 0, the highest one" in far["reason"]
        [id] = service.write([hero()]).ids
        assert id <= 1_000_000_001
        files = [f"{billions}000000000,far,p,n,4,c\n" for billions in (1, 2, 3, 4)]
        rows = [entry_points.ingest(bucket.put("incoming/a.csv", each))[0] for each in files]
        assert [each["rows"] for each in rows] == [1, 1, 1, 0]
        assert "is above 3221225469: too few" in rows[-1]["reason"], "one after the other"
        database.query("DELETE FROM heroes")

        [summary] = entry_points.ingest(bucket.put("incoming/near.csv", near))
        assert (summary["status"], summary["rows"]) == ("loaded", 1_996)


def test_a_trigger_is_seen_by_a_container_that_loaded_files_before(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    entry_points.ingest(bucket.put("incoming/products/one.csv", "900,lamp,d,1,1\n"))
    witness.query(
        "CREATE TRIGGER shout BEFORE INSERT ON products FOR EACH ROW"
        " SET NEW.ProductName = UPPER(NEW.ProductName)"
    )
    try:
        entry_points.ingest(bucket.put("incoming/products/two.csv", "901,lamp,d,1,1\n"))
        for use_cache in (True, False):
            [row] = service.read([901], use_cache, TABLE="products").rows
            assert row["ProductName"] == "LAMP"
    finally:
        witness.query("DROP TRIGGER shout")
