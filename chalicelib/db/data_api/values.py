"""Values on their way to the Data API and back: named parameters, and fields with a type."""

from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.db.engine import Rows
from chalicelib.db.statements import Statement

Field = Mapping[str, Any]

_LONG = range(-(2**63), 2**63)


def named(statement: Statement) -> tuple[str, list[Field]]:
    """The SQL with a name in the place of each %s, and the values by name."""
    text, values = statement
    first, *others = text.split("%s")
    sql = first + "".join(f":p{number}{part}" for number, part in enumerate(others))
    return sql, parameters(values)


def parameters(values: Sequence[object]) -> list[Field]:
    """The values as `:p0`, `:p1` and so on."""
    return [{"name": f"p{number}", **_typed(value)} for number, value in enumerate(values)]


def rows_of(reply: Mapping[str, Any]) -> Rows:
    """The rows that a statement selected."""
    return [tuple([_plain(field) for field in record]) for record in reply.get("records", ())]


def _typed(value: object) -> Field:
    if isinstance(value, int):
        if value in _LONG:
            return {"value": {"longValue": value}}
        return {"value": {"stringValue": str(value)}, "typeHint": "DECIMAL"}
    if isinstance(value, bytes):
        return {"value": {"blobValue": value}}
    if value is None:
        return {"value": {"isNull": True}}
    return {"value": {"stringValue": str(value)}}


def _plain(field: Field) -> object:
    """An integer, a text, bytes or None: our tables and statements have nothing else."""
    [(kind, value)] = field.items()
    if kind == "isNull":
        return None
    return int(value) if kind == "booleanValue" else value
