"""The function `employees`: adds employees, and returns all of them.

The event is `{"EmpId": ..., "EmpName": ...}`, or `{"Employees": [...]}` with many of these. An
employee whose EmpId is there already gets the new name, because Lambda may deliver an event twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chalicelib import services
from chalicelib.column_types import InvalidValue
from chalicelib.config import MAX_RESULT_BYTES
from chalicelib.error_text import shown
from chalicelib.errors import (
    BadRequest,
    ConfigurationError,
    DatabaseUnavailable,
    HerocacheError,
    TooLarge,
)
from chalicelib.handlers.validation import reject_repeated
from chalicelib.rows import RowService
from chalicelib.tables import EMPLOYEES, Row, Table

LIST = "Employees"
ATOMIC = "Atomic"
# Each batch by itself; without it all employees of an event are added, or none.
BATCH = "batch"
BATCH_SIZE = 50
MAX_EMPLOYEES = 10_000

Answer = list[list[str]] | dict[str, Any]


def add(event: Any) -> Answer:
    """Adds the employees of `event`, and returns all that there are as [EmpId, EmpName], in the
    order of EmpId. With `"Atomic": "batch"` each batch of 50 is added by itself, and the answer is
    `{"Employees": [...], "Batches": [...]}`: what became of each.

    Raises BadRequest, which names the missing attribute, before anything is added; TooLarge where
    the list is too long for an answer of Lambda; and the errors of `RowService.write`. An error of
    the list says how many were added."""
    rows, is_by_batch = _parsed(event)
    container = services.container()
    table = replace(EMPLOYEES, name=container.settings.employees_table)
    if not is_by_batch:
        container.rows.write(table, rows, False)
        return _everybody(container.rows, table, len(rows))
    added, batches = _add_by_batch(container.rows, table, rows)
    return {LIST: _everybody(container.rows, table, added), "Batches": batches}


def _parsed(event: Any) -> tuple[Sequence[Row], bool]:
    """The employees, and whether each batch is added by itself."""
    if not isinstance(event, dict):
        raise BadRequest(f"event: expected an object with EmpId and EmpName, or with {LIST}")
    if LIST not in event:
        return [_employee("event", event)], False
    for name in event.keys() - {LIST, ATOMIC}:
        raise BadRequest(f"event: {shown(name)} is no attribute; there are {LIST}, {ATOMIC}")
    if event.get(ATOMIC) not in (None, "all", BATCH):
        raise BadRequest(f'{ATOMIC}: expected "all" or "{BATCH}", got {shown(event[ATOMIC])}')
    items = event[LIST]
    if not isinstance(items, list) or not items:
        raise BadRequest(f"{LIST}: expected a list of at least one employee")
    if len(items) > MAX_EMPLOYEES:
        raise TooLarge(f"{LIST}: at most {MAX_EMPLOYEES} in one event, got {len(items)}")
    rows = [_employee(f"{LIST}[{i}]", item) for i, item in enumerate(items)]
    reject_repeated(EMPLOYEES, [row[0] for row in rows], LIST)
    return rows, event.get(ATOMIC) == BATCH


def _employee(place: str, item: Any) -> Row:
    names = [column.name for column in EMPLOYEES.columns]
    if not isinstance(item, dict):
        raise BadRequest(f"{place}: expected an object with EmpId and EmpName, got {shown(item)}")
    for name in names:
        if name not in item:
            raise BadRequest(f"{place}: the attribute {name} is missing; nothing was added")
    for name in item.keys() - set(names):
        raise BadRequest(f"{place}: {shown(name)} is no attribute of an employee")
    values = []
    for column in EMPLOYEES.columns:
        try:
            values.append(column.type.parse(item[column.name]))
        except InvalidValue as error:
            raise BadRequest(f"{place}.{column.name}: {error}; nothing was added") from error
    return tuple(values)


def _add_by_batch(
    service: RowService, table: Table, rows: Sequence[Row]
) -> tuple[int, list[Mapping[str, object]]]:
    """How many were added, and what became of each batch. One that fails does not keep the others
    from being added."""
    added = 0
    batches: list[Mapping[str, object]] = []
    for start in range(0, len(rows), BATCH_SIZE):
        batch = rows[start : start + BATCH_SIZE]
        told: dict[str, object] = {"first": start, "count": len(batch), "added": True}
        try:
            service.write(table, batch, False)
            added += len(batch)
        except HerocacheError as error:
            told |= {"added": False, "error": f"{error.kind}: {error}"}
        batches.append(told)
    return added, batches


def _everybody(service: RowService, table: Table, added: int) -> list[list[str]]:
    try:
        rows = service.all_rows(table, MAX_RESULT_BYTES)
    except TooLarge as error:
        raise TooLarge(
            f"{LIST}: {added} added; but the list of all is longer than an answer of Lambda may be"
            f" ({MAX_RESULT_BYTES} bytes): read them with the function storage, by EmpId"
        ) from error
    except (DatabaseUnavailable, ConfigurationError) as error:
        raise type(error)(f"{LIST}: {added} added; but the list of all: {error}") from error
    return [[str(value) for value in row] for row in rows]
