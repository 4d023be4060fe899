"""The other declared tables, and what it takes to declare one more or one more lookup."""

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import pytest

from chalicelib import tables
from chalicelib.column_types import INTEGER, STRING, STRING_KEY, UNSIGNED_KEY
from chalicelib.tables import HEROES, Column, Table
from tests.support.client import InProcess, as_stored, hero
from tests.support.witness import Witness

LAMP = {"ProductName": "Lamp", "Description": "", "QuantityInStock": 3, "Price": -5}


def declare(monkeypatch: pytest.MonkeyPatch, table: Table) -> None:
    monkeypatch.setitem(cast(dict[str, Table], tables.TABLES), table.name, table)


@pytest.mark.both_engines
def test_products_are_written_and_read(service: InProcess) -> None:
    given = {"ProductId": 11, **LAMP, "Price": "12"}

    [new, old] = service.write([LAMP, given], TABLE="products").ids

    assert old == 11
    for use_cache in (True, True, False):
        answer = service.read(["11", new, 5], use_cache, TABLE="products")
        assert answer.rows == [{**given, "Price": 12}, {"ProductId": new, **LAMP}]
        assert [list(row) for row in answer.rows] == [["ProductId", *LAMP]] * 2
        assert answer.missing == [5]


@pytest.mark.both_engines
def test_employees_are_written_and_read_by_the_key_the_client_gives(service: InProcess) -> None:
    ada, bob = {"EmpId": "ada/1", "EmpName": "Ada"}, {"EmpId": "Ädä 黒", "EmpName": ""}

    answer = service.write([bob, ada], TABLE="employees")

    assert answer.ids == ["Ädä 黒", "ada/1"]
    for use_cache in (True, True, False):
        answer = service.read(["ada/1", "ADA/1", "Ädä 黒"], use_cache, TABLE="employees")
        assert answer.rows == [ada, bob]
        assert answer.missing == ["ADA/1"]


@pytest.mark.both_engines
def test_an_employee_is_replaced_in_table_and_cache(service: InProcess) -> None:
    for use_cache in (True, False):
        service.write([{"EmpId": "e", "EmpName": "old"}], TABLE="employees")
        service.read(["e"], TABLE="employees")
        new = {"EmpId": "e", "EmpName": f"new {use_cache}"}

        assert service.write([new], use_cache, TABLE="employees").ids == ["e"]
        for read_cached in (True, False):
            assert service.read(["e"], read_cached, TABLE="employees").rows == [new]


def test_an_employee_without_a_key_is_refused(service: InProcess, witness: Witness) -> None:
    answer = service.write([{"EmpName": "Ada"}], TABLE="employees")

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith("SQLS[0].EmpId: missing")
    assert witness.count("employees") == 0


@pytest.mark.parametrize("key", ["", " ", " e", "e ", "\te", "e\u00a0", "e\n", 5, None, True, 1.5])
def test_a_text_key_is_not_empty_and_not_padded(
    service: InProcess, witness: Witness, key: object
) -> None:
    read = service.read([key], TABLE="employees")
    written = service.write([{"EmpId": key, "EmpName": "Ada"}], TABLE="employees")

    assert (read.status, written.status) == (400, 400)
    assert read.message.startswith("SQLS[0]: ")
    assert written.message.startswith("SQLS[0].EmpId: ")
    assert witness.count("employees") == 0


def test_tables_with_the_same_keys_keep_their_rows_apart(service: InProcess) -> None:
    service.write([{"id": 1, **hero()}])
    service.write([{"ProductId": 1, **LAMP}], TABLE="products")
    service.write([{"EmpId": "1", "EmpName": "Ada"}], TABLE="employees")

    for _ in range(2):
        assert service.read([1]).rows == [as_stored(1, hero())]
        assert service.read([1], TABLE="products").rows == [{"ProductId": 1, **LAMP}]
        employees = service.read(["1"], TABLE="employees").rows
        assert employees == [{"EmpId": "1", "EmpName": "Ada"}]


@pytest.fixture
def name_index(witness: Witness) -> Iterator[None]:
    witness.query("CREATE INDEX heroes_name ON heroes (name)")
    yield
    witness.query("DROP INDEX heroes_name ON heroes")


@pytest.mark.usefixtures("name_index")
@pytest.mark.usefixtures("lasting_generations")
def test_one_more_lookup_costs_one_declaration(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    heroes = replace(HEROES, lookups=("xp", "name"))
    declare(monkeypatch, heroes)
    witness.give_cache_of(heroes)
    names = ["Ana", "ana", "Ana", "Ána", "Ana ", "", "10"]
    rows = [as_stored(i, hero(name=name, xp=7)) for i, name in enumerate(names, 1)]
    service.write(rows)

    for use_cache in (True, True, False):
        answer = service.read(["", "Ana", "10", "nobody", "Ana"], use_cache, BY="name")
        assert [row["id"] for row in answer.rows] == [6, 1, 3, 7, 1, 3]
        assert answer.missing == ["nobody"]
    with witness.spent() as spent:
        service.read(["Ana", "", "10"], BY="name")
    assert (spent.statements, spent.commands) == (0, {"mget": 1})

    for use_cache in (True, False):
        service.write([{**rows[0], "name": f"Bea {use_cache}"}], use_cache)
        assert [row["id"] for row in service.read(["Ana"], BY="name").rows] == [3]
        assert len(service.read([f"Bea {use_cache}"], BY="name").rows) == 1
        assert len(service.read([7], BY="xp").rows) == len(rows)
        service.write([rows[0]], use_cache)
        assert [row["id"] for row in service.read(["Ana"], BY="name").rows] == [1, 3]


@pytest.mark.parametrize("kind", ["utf8mb4_general_ci", "utf8mb4_bin", "latin1_swedish_ci"])
def test_a_text_lookup_gives_exactly_the_text_asked_for_whatever_the_collation_says(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Whole or in pages, cached or not. All of these collations take 'bob' and 'bob ' for one."""
    charset = kind.partition("_")[0]
    witness.query(
        "CREATE TABLE towns (nr INT UNSIGNED AUTO_INCREMENT PRIMARY KEY, mayor VARCHAR(255)"
        f" CHARACTER SET {charset} COLLATE {kind} NOT NULL, doom INT NOT NULL, INDEX (mayor))"
    )
    columns = (Column("nr", UNSIGNED_KEY), Column("mayor", STRING), Column("doom", INTEGER))
    declare(monkeypatch, Table("towns", columns, auto_key=True, lookups=("mayor",)))
    try:
        mayors = ["bób", "Bób", "bób ", "bob", "bób", "BÓB", "bób"]
        rows = [{"nr": nr, "mayor": mayor, "doom": 0} for nr, mayor in enumerate(mayors, 1)]
        service.write(rows, TABLE="towns")
        by = {"TABLE": "towns", "BY": "mayor"}
        for use_cache in (True, True, False):
            for mayor in dict.fromkeys(mayors):
                exact = [row for row in rows if row["mayor"] == mayor]
                assert service.read([mayor], use_cache, **by).rows == exact
                assert service.read([mayor], use_cache, LIMIT=9, **by).rows == exact
            page = service.read(["bób"], use_cache, LIMIT=2, AFTER=1, **by)
            assert [row["nr"] for row in page.rows] == [5, 7]
            for paged in ({}, {"LIMIT": 9}):
                assert service.read(["BOB"], use_cache, **by, **paged).missing == ["BOB"]

        assert service.write([{**rows[0], "mayor": "BÓB"}], TABLE="towns").ids == [1]
        for use_cache in (True, False):
            for mayor, found in (("bób", [5, 7]), ("BÓB", [1, 6])):
                answer = service.read([mayor], use_cache, **by)
                assert [row["nr"] for row in answer.rows] == found
    finally:
        witness.query("DROP TABLE towns")
        witness.query("DELETE FROM cache_generation WHERE table_name = 'towns'")


@pytest.mark.parametrize("kind", ["utf8mb4_bin", "utf8mb4_nopad_bin"])
def test_a_lookup_has_its_rows_in_the_order_of_the_database_whatever_their_keys(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Of the first kind 'a' is compared as if blanks followed it, and a tab comes before these."""
    if not witness.query("SHOW COLLATION LIKE %s", [kind]):
        kind = "utf8mb4_0900_bin"
    witness.query(
        f"CREATE TABLE towns (code VARCHAR(99) COLLATE {kind} PRIMARY KEY, doom INT NOT NULL,"
        " INDEX (doom)) CHARSET utf8mb4"
    )
    columns = (Column("code", STRING_KEY), Column("doom", INTEGER))
    declare(monkeypatch, Table("towns", columns, lookups=("doom",)))
    try:
        for keys in (["a", "b"], ["a", "a\tb", "é"]):
            service.write([{"code": key, "doom": len(keys)} for key in keys], TABLE="towns")
            by = {"TABLE": "towns", "BY": "doom"}
            cached, stored = (service.read([len(keys)], way, **by) for way in (True, False))
            assert cached.content == stored.content
            assert len(stored.rows) == len(keys)
    finally:
        witness.query("DROP TABLE towns")
        witness.query("DELETE FROM cache_generation WHERE table_name = 'towns'")


@pytest.fixture
def villains(witness: Witness, monkeypatch: pytest.MonkeyPatch) -> Iterator[Table]:
    columns = (Column("nr", UNSIGNED_KEY), Column("lair", STRING), Column("doom", INTEGER))
    table = Table("villains", columns, auto_key=True, lookups=("doom",))
    witness.query(
        "CREATE TABLE villains (nr INT UNSIGNED AUTO_INCREMENT PRIMARY KEY,"
        " lair VARCHAR(255) NOT NULL, doom INT NOT NULL, INDEX (doom)) CHARSET utf8mb4"
    )
    witness.query(
        "INSERT INTO cache_generation (table_name, generation, enabled) VALUES ('villains', 1, 1)"
    )
    declare(monkeypatch, table)
    yield table
    witness.query("DELETE FROM cache_generation WHERE table_name = 'villains'")
    witness.query("DROP TABLE villains")


@pytest.mark.usefixtures("villains")
def test_a_new_table_is_a_declaration_and_its_sql(service: InProcess) -> None:
    first, second = {"lair": "volcano", "doom": 9}, {"lair": "moon", "doom": 9}

    ids = service.write([first, second], TABLE="villains").ids

    expected = [{"nr": id, **row} for id, row in zip(ids, [first, second])]
    for use_cache in (True, True, False):
        assert service.read(ids, use_cache, TABLE="villains").rows == expected
        assert service.read([9], use_cache, TABLE="villains", BY="doom").rows == expected
