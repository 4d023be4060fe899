"""Typed parameters of a request, as SQL literals."""

import datetime
import json
import re
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from pymysql.converters import escape_string

from local.data_api.errors import ServiceError, invalid

TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d{1,3})?"


def literals(parameters: Iterable[dict[str, Any]]) -> dict[str, str]:
    """A literal for each name. Raises ServiceError."""
    found: dict[str, str] = {}
    for parameter in parameters:
        name, value = parameter.get("name"), parameter.get("value")
        if not name or value is None:
            raise invalid("A parameter needs a name and a value")
        if name in found:
            raise invalid(f"The parameter {name} is given twice")
        found[name] = literal(name, value, parameter.get("typeHint"))
    return found


def literal(name: str, value: dict[str, Any], hint: str | None) -> str:
    [(kind, content)] = value.items()
    if kind == "isNull":
        if not content:
            raise invalid(f"The parameter {name} has no value: isNull is false")
        return "NULL"
    if hint is not None:
        if kind != "stringValue":
            raise invalid(f"The parameter {name} has the type hint {hint} and is not a string")
        return hinted(name, content, hint)
    if kind == "arrayValue":
        # API reference, ExecuteStatement: "Array parameters are not supported."
        raise ServiceError("BadRequestException", "Array parameters are not supported.")
    return LITERALS[kind](content)


def hinted(name: str, text: str, hint: str) -> str:
    try:
        fits = FITS[hint](text)
    except ValueError:
        fits = False
    if not fits:
        raise invalid(f"The parameter {name} is no {hint}")
    return text if hint == "DECIMAL" else quoted(text)


def quoted(text: str) -> str:
    return f"'{escape_string(text)}'"


def integer(number: int) -> str:
    # In parentheses, because two minus signs could begin a comment.
    return str(number) if number >= 0 else f"({number})"


def double(number: float) -> str:
    # Without an exponent, MySQL would take it for an exact number.
    text = repr(float(number))
    exact = text if "e" in text else f"{text}e0"
    return exact if number >= 0 else f"({exact})"


def is_date(text: str) -> bool:
    return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text) and datetime.date.fromisoformat(text))


def is_timestamp(text: str) -> bool:
    return is_date(text[:10]) and bool(re.fullmatch(" " + TIME, text[10:]))


def is_json(text: str) -> bool:
    json.loads(text)
    return True


LITERALS: dict[str, Callable[[Any], str]] = {
    "booleanValue": lambda value: "TRUE" if value else "FALSE",
    "longValue": integer,
    "doubleValue": double,
    "stringValue": quoted,
    "blobValue": lambda blob: f"X'{blob.hex()}'",
}
# API reference, SqlParameter: the accepted formats. Of a second, `[.FFF]`: no more than
# milliseconds.
FITS: dict[str, Callable[[str], bool]] = {
    "DATE": is_date,
    "DECIMAL": lambda text: bool(re.fullmatch(r"-?\d+(\.\d+)?", text)),
    "JSON": is_json,
    "TIME": lambda text: bool(re.fullmatch(TIME, text)),
    "TIMESTAMP": is_timestamp,
    "UUID": lambda text: str(uuid.UUID(text)) == text.lower(),
}
