"""The function `employees`: what it adds, returns and rejects, over either engine."""

import json
from typing import Any

import pytest

from app import employees
from chalicelib.db import batches
from chalicelib.errors import BadRequest, HerocacheError, SchemaMismatch, TooLarge
from chalicelib.handlers import employees as handler
from tests.conftest import Configure
from tests.support.client import InProcess
from tests.support.witness import Witness

pytestmark = pytest.mark.both_engines


def many(count: int, name: str = "Ada") -> list[dict[str, str]]:
    return [{"EmpId": f"E{number:05}", "EmpName": f"{name} {number}"} for number in range(count)]


def add(event: object) -> Any:
    return employees(event, None)


def table(witness: Witness) -> list[list[Any]]:
    found = witness.query("SELECT EmpId, EmpName FROM employees ORDER BY EmpId")
    return [list(row) for row in found]


def test_one_employee_is_added_and_all_are_returned_in_the_order_of_their_ids(
    service: InProcess, witness: Witness
) -> None:
    assert add({"EmpId": "E2", "EmpName": "Grace Hopper"}) == [["E2", "Grace Hopper"]]
    everybody = add({"EmpId": "E10", "EmpName": "Señor Ωmega 🌠"})
    assert everybody == [["E10", "Señor Ωmega 🌠"], ["E2", "Grace Hopper"]]
    assert table(witness) == everybody


def test_an_event_that_is_delivered_twice_adds_its_employee_once(service: InProcess) -> None:
    event = {"EmpId": "E1", "EmpName": "Ada"}
    assert add(event) == add(event) == [["E1", "Ada"]]


def test_what_was_cached_of_an_employee_is_not_shown_after_it(service: InProcess) -> None:
    read = {"REQUEST": "read", "TABLE": "employees", "SQLS": ["E1"]}
    add({"EmpId": "E1", "EmpName": "Ada"})
    service.post(read)
    add({"EmpId": "E1", "EmpName": "Grace"})
    assert service.post(read).rows == [{"EmpId": "E1", "EmpName": "Grace"}]


@pytest.mark.parametrize("count", [1, 50, 51, 1000])
def test_many_are_added_together(service: InProcess, witness: Witness, count: int) -> None:
    everybody = add({"Employees": many(count)})
    assert everybody == [[each["EmpId"], each["EmpName"]] for each in many(count)]
    assert table(witness) == everybody


INVALID = {
    "no EmpName": ({"EmpId": "E1"}, "event: the attribute EmpName is missing"),
    "no EmpId": ({"EmpName": "Ada"}, "event: the attribute EmpId is missing"),
    "no EmpName in a list": (
        {"Employees": [*many(60), {"EmpId": "E1"}]},
        "Employees[60]: the attribute EmpName is missing",
    ),
    "a number": ({"EmpId": 7, "EmpName": "Ada"}, "event.EmpId: expected a string, got 7"),
    "an empty id": ({"EmpId": "", "EmpName": "Ada"}, "event.EmpId: a key is not empty"),
    "a long name": ({"EmpId": "E1", "EmpName": "a" * 256}, "event.EmpName: expected at most 255"),
    "another attribute": (
        {"EmpId": "E1", "EmpName": "Ada", "Age": 3},
        "event: 'Age' is no attribute of an employee",
    ),
    "no object": ([1], "event: expected an object"),
    "null": (None, "event: expected an object"),
    "no list": ({"Employees": "E1"}, "Employees: expected a list"),
    "an empty list": ({"Employees": []}, "Employees: expected a list"),
    "another attribute of a list": (
        {"Employees": many(1), "Atom": "batch"},
        "event: 'Atom' is no attribute",
    ),
    "one twice": (
        {"Employees": [*many(60), *many(1, "Bob")]},
        "Employees[60].EmpId: 'E00000' is also the key of Employees[0]; name a row once",
    ),
    "one twice, in two batches": (
        {"Employees": [*many(60), *many(1, "Bob")], "Atomic": "batch"},
        "Employees[60].EmpId: 'E00000' is also the key of Employees[0]; name a row once",
    ),
    "another Atomic": ({"Employees": many(1), "Atomic": "row"}, "Atomic: expected"),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_invalid_raises_an_error_that_names_it_and_adds_nothing(
    service: InProcess, witness: Witness, name: str
) -> None:
    event, words = INVALID[name]
    with pytest.raises(BadRequest) as raised:
        add(event)
    assert str(raised.value).startswith(words)
    assert table(witness) == []


def test_too_many_in_one_event_are_refused(service: InProcess, witness: Witness) -> None:
    with pytest.raises(TooLarge, match="at most 10000"):
        add({"Employees": many(handler.MAX_EMPLOYEES + 1)})
    assert table(witness) == []


@pytest.fixture
def picky(witness: Witness) -> Any:
    """The database rejects one employee."""
    witness.query(
        "CREATE TRIGGER picky BEFORE INSERT ON employees FOR EACH ROW"
        " IF NEW.EmpName = 'Bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no'; END IF"
    )
    yield
    witness.query("DROP TRIGGER picky")


@pytest.mark.usefixtures("picky")
def test_all_are_rolled_back_together(service: InProcess, witness: Witness) -> None:
    event = {"Employees": [*many(120), {"EmpId": "X", "EmpName": "Bad"}]}
    with pytest.raises(HerocacheError, match="row 121: a trigger rejects this row: no"):
        add(event)
    assert table(witness) == []


@pytest.mark.usefixtures("picky")
def test_batches_are_added_each_by_itself_and_told(service: InProcess, witness: Witness) -> None:
    listed = many(120)
    listed[60]["EmpName"] = "Bad"
    answer = add({"Employees": listed, "Atomic": "batch"})
    first, second, third = answer["Batches"]
    assert first == {"first": 0, "count": 50, "added": True}
    assert (second["first"], second["count"], second["added"]) == (50, 50, False)
    assert "row 11: a trigger rejects this row: no" in second["error"]
    assert third == {"first": 100, "count": 20, "added": True}
    assert answer["Employees"] == table(witness)
    assert [row[0] for row in table(witness)] == [e["EmpId"] for e in [*listed[:50], *listed[100:]]]


def test_a_list_that_lambda_could_not_answer_is_told(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "MAX_RESULT_BYTES", 1000)
    monkeypatch.setattr(batches, "PAGE_ROWS", 7)
    with pytest.raises(TooLarge, match="Employees: 100 added; but the list of all is longer"):
        add({"Employees": many(100)})
    assert len(table(witness)) == 100


@pytest.mark.usefixtures("picky")
def test_a_list_that_is_too_long_is_told_with_those_that_were_added_alone(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler, "MAX_RESULT_BYTES", 1000)
    listed = many(120)
    listed[60]["EmpName"] = "Bad"
    with pytest.raises(TooLarge, match="Employees: 70 added; but the list of all is longer"):
        add({"Employees": listed, "Atomic": "batch"})
    assert len(table(witness)) == 70


def test_pages_are_the_whole_list(service: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PAGE_ROWS", 7)
    assert len(add({"Employees": many(50)})) == 50
    assert [name for _, name in add({"Employees": many(21, "Bob")})][:21] == [
        f"Bob {number}" for number in range(21)
    ]


@pytest.fixture
def workshop(witness: Witness) -> Any:
    """A table of another name and spelling, without rows."""
    witness.query("CREATE TABLE Employee LIKE employees")
    yield
    witness.query("DROP TABLE Employee")
    witness.query("DELETE FROM cache_generation WHERE table_name = 'Employee'")


@pytest.mark.usefixtures("workshop")
@pytest.mark.parametrize("name", ["Employee", "herocache.Employee"])
def test_a_table_of_another_name_is_used(
    service: InProcess, witness: Witness, configure: Configure, name: str
) -> None:
    configure(EMPLOYEES_TABLE=name)
    assert add({"EmpId": "E1", "EmpName": "Ada"}) == [["E1", "Ada"]]
    assert witness.query("SELECT * FROM Employee") == [("E1", "Ada")]


def test_a_table_that_is_not_there_is_told(service: InProcess, configure: Configure) -> None:
    configure(EMPLOYEES_TABLE="Nobody")
    with pytest.raises(SchemaMismatch, match="Nobody"):
        add({"EmpId": "E1", "EmpName": "Ada"})


def test_an_answer_is_json(service: InProcess) -> None:
    assert json.loads(json.dumps(add({"Employees": many(3)}))) == add({"Employees": many(3)})
