"""Files for tables that take less than they are declared for: a row is refused, not the file."""

import pytest

from chalicelib import handlers, ingest
from chalicelib.errors import SchemaMismatch
from tests import test_schema
from tests.aurora import load_from_s3
from tests.bucket import UploadBucket
from tests.client import InProcess
from tests.conftest import Configure
from tests.test_schema import OTHER, SUPERHEROES, Tables

database = test_schema.database  # the fixture

NARROW_ROWS = (
    "1,Nova,light,Ada,10,red\n"
    f"2,{'x' * 21},light,Bo,20,blue\n"
    "3,Onyx,frost,Cy,-1,blue\n"
    f"4,{'ñ' * 20},frost,Di,2147483647,blue\n"
)


@pytest.mark.parametrize("engine", ["mysql", "aurora"])
@pytest.mark.parametrize("max_small_bytes", [0, ingest.MAX_SMALL_BYTES], ids=["big", "small"])
def test_a_value_too_large_for_the_real_column_rejects_its_row_of_a_file(
    database: Tables,
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    max_small_bytes: int,
    engine: str,
) -> None:
    monkeypatch.setattr(ingest, "MAX_SMALL_BYTES", max_small_bytes)
    database.query(SUPERHEROES)
    configure(DB_NAME=OTHER, DB_TABLE="superheroes", INGEST_ENGINE=engine)
    event = bucket.put("a.csv", NARROW_ROWS)

    with load_from_s3():
        [summary] = handlers.ingest(event)
        [again] = handlers.ingest(event)

    assert (summary["status"], summary["table"]) == ("loaded", "superheroes")
    assert (summary["rows"], summary["refused"]) == (again["rows"], again["refused"]) == (2, 2)
    told = (bucket.rejected("a.csv") or "").splitlines()[1:]
    assert [line.split(",")[:2] for line in told] == [["2", "hero"], ["3", "xp"]]
    assert "expected at most 20 characters, got 21" in told[0]
    assert summary["first_rows"] == service.read([1, 4]).rows


@pytest.mark.parametrize("engine", ["mysql", "aurora"])
def test_a_character_that_the_real_column_does_not_have_rejects_its_row_of_a_file(
    database: Tables,
    configure: Configure,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
) -> None:
    monkeypatch.setattr(ingest, "MAX_SMALL_BYTES", 0)
    database.query("ALTER TABLE heroes MODIFY color VARCHAR(255) CHARACTER SET latin1 NOT NULL")
    configure(DB_NAME=OTHER, INGEST_ENGINE=engine)

    with load_from_s3():
        [summary] = handlers.ingest(bucket.put("a.csv", "1,a,b,c,1,é\n2,a,b,c,1,光\n3,a,b,c,1,\n"))

    assert (summary["rows"], summary["refused"]) == (2, 1)
    assert [row["color"] for row in summary["first_rows"]] == ["é", ""]


@pytest.mark.parametrize("max_small_bytes", [0, ingest.MAX_SMALL_BYTES], ids=["big", "small"])
def test_a_file_for_a_table_that_does_not_fit_is_tried_again_once_that_is_mended(
    database: Tables,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    max_small_bytes: int,
) -> None:
    monkeypatch.setattr(ingest, "MAX_SMALL_BYTES", max_small_bytes)
    database.query("ALTER TABLE heroes MODIFY xp DECIMAL(10,2) NOT NULL")
    event = bucket.put("a.csv", NARROW_ROWS)

    with pytest.raises(SchemaMismatch, match=r"heroes\.xp is DECIMAL"):
        handlers.ingest(event)

    database.query("ALTER TABLE heroes MODIFY xp INT NOT NULL")
    [summary] = handlers.ingest(event)
    assert (summary["status"], summary["rows"]) == ("loaded", 4)


@pytest.mark.parametrize("engine", ["mysql", "aurora"])
@pytest.mark.parametrize("max_small_bytes", [0, ingest.MAX_SMALL_BYTES], ids=["big", "small"])
def test_a_row_that_only_a_constraint_refuses_refuses_the_file_in_words(
    database: Tables,
    service: InProcess,
    configure: Configure,
    bucket: UploadBucket,
    monkeypatch: pytest.MonkeyPatch,
    max_small_bytes: int,
    engine: str,
) -> None:
    monkeypatch.setattr(ingest, "MAX_SMALL_BYTES", max_small_bytes)
    database.query("ALTER TABLE heroes ADD CONSTRAINT low CHECK (xp < 100)")
    configure(DB_NAME=OTHER, INGEST_ENGINE=engine)

    with load_from_s3():
        [summary] = handlers.ingest(bucket.put("a.csv", "1,a,b,c,1,d\n2,a,b,c,200,d\n"))

    assert (summary["status"], summary["rows"]) == ("refused", 0)
    assert "CHECK constraint low" in summary["reason"]
    assert database.query("SELECT * FROM heroes") == []
