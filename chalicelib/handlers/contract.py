"""The wire: JSON text to a checked request, results to the JSON text of an answer.

The only place that knows field names and error shapes. `decode` takes bytes apart, `parse` checks
what came out of them (or what Lambda handed over as a payload); replies go the other way.
"""

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from chalicelib.config import MAX_RESULT_BYTES
from chalicelib.errors import (
    BadRequest,
    ConfigurationError,
    HerocacheError,
    RowRejected,
    TooLarge,
    TooManyRows,
    UnsupportedEncoding,
)
from chalicelib.rows import Page, Rows
from chalicelib.tables import (
    NO_KEY,
    STRING_KEY,
    TABLES,
    Column,
    Integer,
    InvalidValue,
    Key,
    Row,
    String,
    Table,
    shown,
    tables_with,
)

REQUEST, SQLS, USE_CACHE, TABLE, BY = "REQUEST", "SQLS", "USE_CACHE", "TABLE", "BY"
IDEMPOTENCY_KEY = "IDEMPOTENCY_KEY"
IDEMPOTENCY_HEADER = "idempotency-key"
ENCODING_HEADER = "content-encoding"
CACHE_NAME = "herocache"
LIMIT, AFTER = "LIMIT", "AFTER"
FIELDS = (REQUEST, SQLS, USE_CACHE, TABLE, BY, LIMIT, AFTER, IDEMPOTENCY_KEY)
READ, WRITE, DELETE, INVALIDATE = "read", "write", "delete", "invalidate"
EVERY_ROW = ["*"]
"""The SQLS of an invalidate that means the whole table."""

MAX_READ_VALUES = 10_000
MAX_LIMIT = 10_000
MAX_WRITE_ROWS = 1_000
MAX_BODY_BYTES = 6_000_000
# Below this no way of escaping a text into Lambda's own JSON answer can pass its limit: a character
# outside the basic plane becomes two escapes of six bytes.
_SURELY_SMALL_CHARACTERS = MAX_RESULT_BYTES // 12
_LIMIT = Integer(1, MAX_LIMIT)
_HIGHEST_KEY = 2**63 - 1
"""Of a column that is BIGINT."""
_LOGGED_CHARACTERS = 300


@dataclass(frozen=True)
class Read:
    """`page`: only a part of the rows that have the one value in `values`."""

    table: Table
    column: Column
    values: Sequence[Key]
    use_cache: bool
    page: Page | None = None


@dataclass(frozen=True)
class Write:
    """`rows` in the order of SQLS; NO_KEY stands where a row came without its key."""

    table: Table
    rows: Sequence[Row]
    use_cache: bool
    idempotency_key: str


@dataclass(frozen=True)
class Delete:
    table: Table
    keys: Sequence[Key]
    idempotency_key: str


@dataclass(frozen=True)
class Invalidate:
    """`keys` says which rows were changed elsewhere; None: any of them."""

    table: Table
    keys: Sequence[Key] | None


@dataclass(frozen=True)
class Reply:
    """`text` is the whole answer as JSON; `status` is also in it as `statusCode`. `cache_status`
    is what the header of this name says of a read."""

    text: str
    status: int = 200
    retry_after_seconds: int | None = None
    cache_status: str = ""


Request = Read | Write | Delete | Invalidate


# --- requests -----------------------------------------------------------------------------------


def decode(body: bytes) -> object:
    """The JSON value in `body`. Raises BadRequest or TooLarge saying where it is not one."""
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"body: more than {MAX_BODY_BYTES} bytes; send fewer items at a time")
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"body: not UTF-8 at byte {error.start}") from error
    try:
        if "-0" in text:
            return _EXACT.decode(text)
        return _DECODER.decode(text)
    except RecursionError as error:
        raise BadRequest("body: nested too deeply; SQLS is a flat list") from error
    except json.JSONDecodeError as error:
        raise BadRequest(
            f"body: not JSON at line {error.lineno} column {error.colno}: {error.msg}"
        ) from error
    except ValueError:
        return _EXACT.decode(text)  # an integer of more digits than Python converts


def unpacked(body: bytes, encoding: str) -> bytes:
    """`body` without the compression that the header Content-Encoding names. A gateway that has
    taken it off already may leave the header. Raises BadRequest, UnsupportedEncoding; TooLarge
    before more than the limit is unpacked."""
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip"):
        raise UnsupportedEncoding(
            f"Content-Encoding: {shown(encoding)} is not read here; send the body as it is, or gzip"
        )
    if not body.startswith(b"\x1f"):
        return body
    try:
        return gzip.GzipFile(fileobj=io.BytesIO(body)).read(MAX_BODY_BYTES + 1)
    except EOFError as error:
        raise BadRequest("body: Content-Encoding says gzip, but it ends too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise BadRequest("body: Content-Encoding says gzip, but it is damaged") from error


def parse(payload: object, default_table: str, read_by: str | None) -> Request:
    """The request in `payload`. `default_table` and `read_by` are the deployment's settings.
    Raises BadRequest naming the place, TooLarge, ConfigurationError."""
    if not isinstance(payload, dict):
        raise BadRequest(f"body: expected a JSON object, got {_json_type(payload)}")
    for name in payload:
        if name not in FIELDS:
            raise BadRequest(f"{shown(name)}: no such field; there are {', '.join(FIELDS)}")
    request = _choice(payload, REQUEST, (READ, WRITE, DELETE, INVALIDATE))
    table = _table(payload, default_table)
    use_cache = _use_cache(payload)
    if request == READ:
        _refuse(payload, IDEMPOTENCY_KEY, "a read changes nothing")
        column = _column(payload, table, read_by)
        values = _values(column, _items(payload, MAX_READ_VALUES, "values"))
        return Read(table, column, values, use_cache, _page(payload, table, column, values))
    for name in (BY, LIMIT, AFTER):
        _refuse(payload, name, "only a read has it")
    if request == INVALIDATE:
        _refuse(payload, IDEMPOTENCY_KEY, "an invalidate may be sent again without one")
        items = _items(payload, MAX_READ_VALUES, 'keys, or ["*"] for the whole table')
        return Invalidate(table, None if items == EVERY_ROW else _values(table.key, items))
    idempotency_key = _idempotency_key(payload)
    if request == DELETE:
        keys = _values(table.key, _items(payload, MAX_WRITE_ROWS, "keys"))
        return Delete(table, keys, idempotency_key)
    rows = _rows(table, _items(payload, MAX_WRITE_ROWS, "rows"))
    return Write(table, rows, use_cache, idempotency_key)


def _page(
    payload: Mapping[str, object], table: Table, column: Column, values: Sequence[Key]
) -> Page | None:
    """One value at a time: the last key of a page says where the next one begins, and only within
    the rows of one value do keys rise."""
    if LIMIT not in payload and AFTER not in payload:
        return None
    name = LIMIT if LIMIT in payload else AFTER
    if column is table.key:
        raise BadRequest(f"{name}: goes with a read by a lookup, and this one is by {column.name}")
    if len(values) > 1:
        raise BadRequest(f"{name}: goes with one value in {SQLS}, got {len(values)}")
    limit = _value(Column(LIMIT, _LIMIT), payload.get(LIMIT, MAX_LIMIT), LIMIT)
    after = (
        _value(Column(AFTER, _before_keys(table)), payload[AFTER], AFTER)
        if AFTER in payload
        else None
    )
    return Page(int(limit), after)


def _before_keys(table: Table) -> Integer | String:
    """What AFTER may be: a key, also one that only others could give, or the 0 that stands before
    all of them."""
    key = table.key.type
    return Integer(0, _HIGHEST_KEY) if isinstance(key, Integer) else key


def _refuse(payload: Mapping[str, object], name: str, why: str) -> None:
    if name in payload:
        raise BadRequest(f"{name}: {why}; leave it out")


def _idempotency_key(payload: Mapping[str, object]) -> str:
    """Empty where there is none."""
    if IDEMPOTENCY_KEY not in payload:
        return ""
    return str(
        _value(Column(IDEMPOTENCY_KEY, STRING_KEY), payload[IDEMPOTENCY_KEY], "Idempotency-Key")
    )


def with_idempotency_key(payload: object, header: str) -> object:
    """The payload with the header's key as its field. It stays out of a request that has no use
    for one."""
    if not isinstance(payload, dict) or payload.get(REQUEST) in (READ, INVALIDATE):
        return payload
    if payload.get(IDEMPOTENCY_KEY, header) != header:
        raise BadRequest(f"{IDEMPOTENCY_KEY}: the header Idempotency-Key has another one; give one")
    return {**payload, IDEMPOTENCY_KEY: header}


def _choice(payload: Mapping[str, object], name: str, known: Sequence[str]) -> str:
    value = payload.get(name)
    if name not in payload:
        raise BadRequest(f"{name}: missing; give one of {_listed(known)}")
    if not isinstance(value, str) or value not in known:
        raise BadRequest(f"{name}: expected one of {_listed(known)}, got {shown(value)}")
    return value


def _table(payload: Mapping[str, object], default: str) -> Table:
    tables = tables_with(default)
    return tables[_choice(payload, TABLE, tuple(tables)) if TABLE in payload else default]


def _column(payload: Mapping[str, object], table: Table, read_by: str | None) -> Column:
    if BY in payload:
        return table.readable[_choice(payload, BY, tuple(table.readable))]
    if read_by and not any(read_by in declared.readable for declared in TABLES.values()):
        raise ConfigurationError("READ_BY: no table is declared to be read by this column")
    return table.readable.get(read_by or "", table.key)


def _use_cache(payload: Mapping[str, object]) -> bool:
    value = payload.get(USE_CACHE, True)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise BadRequest(f'{USE_CACHE}: expected "True" or "False", got {shown(value)}')


def _items(payload: Mapping[str, object], most: int, noun: str) -> list[object]:
    if SQLS not in payload:
        raise BadRequest(f"{SQLS}: missing; give a list of {noun}")
    items = payload[SQLS]
    if not isinstance(items, list):
        raise BadRequest(f"{SQLS}: expected a list of {noun}, got {_json_type(items)}")
    if len(items) > most:
        raise TooLarge(
            f"{SQLS}: {len(items)} {noun}, at most {most}; send them in several requests"
        )
    return items


def _values(column: Column, items: Sequence[Any]) -> Sequence[Key]:
    if column.type.takes_all(items):
        return items
    return [_value(column, item, f"{SQLS}[{i}]") for i, item in enumerate(items)]


def _rows(table: Table, items: Sequence[object]) -> list[Row]:
    rows = [_row(table, item, i) for i, item in enumerate(items)]
    seen: dict[Key, int] = {}
    for i, row in enumerate(rows):
        if row[0] != NO_KEY and seen.setdefault(row[0], i) != i:
            raise BadRequest(
                f"{SQLS}[{i}].{table.key.name}: {shown(row[0])} is also the key of"
                f" {SQLS}[{seen[row[0]]}]; write a row once"
            )
    return rows


def _row(table: Table, item: object, index: int) -> Row:
    try:
        return table.parse(item)
    except (TypeError, KeyError, InvalidValue):
        return _explained_row(table, item, index)


def _explained_row(table: Table, item: object, index: int) -> Row:
    """The slow way, which finds the words for what is wrong."""
    place = f"{SQLS}[{index}]"
    if not isinstance(item, dict):
        raise BadRequest(f"{place}: expected a row object, got {_json_type(item)}")
    if not item.keys() <= table.positions.keys():
        unknown = next(name for name in item if name not in table.positions)
        raise BadRequest(
            f"{place}: {table.name} has no column {shown(unknown)};"
            f" it has {', '.join(table.positions)}"
        )
    return tuple(
        [
            _value(column, item[column.name], f"{place}.{column.name}")
            if column.name in item
            else _absent(table, column, place)
            for column in table.columns
        ]
    )


def _absent(table: Table, column: Column, place: str) -> Key:
    if column is table.key and table.auto_key:
        return NO_KEY
    raise BadRequest(f"{place}.{column.name}: missing; a row of {table.name} needs it")


def _value(column: Column, value: object, place: str) -> Key:
    try:
        return column.type.parse(value)
    except InvalidValue as error:
        raise BadRequest(f"{place}: {error}") from error


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _json_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    names |= {type(None): "null", int: "a number", float: "a number"}
    return names.get(type(value), "something else")


class _Number:
    """A number no column takes, kept as it was written so that its place can be named."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        digits = len(self._text.lstrip("-"))
        return f"an integer of {digits} digits" if digits > 20 else self._text


def _exact_integer(text: str) -> int | _Number:
    return _Number(text) if text == "-0" or len(text) > 20 else int(text)


def _unique_fields(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        _refuse_duplicate(pairs)
    return fields


def _refuse_duplicate(pairs: Sequence[tuple[str, object]]) -> NoReturn:
    counts = Counter(name for name, _ in pairs)
    twice = next(name for name, count in counts.items() if count > 1)
    raise BadRequest(f"body: an object has the field {shown(twice)} twice; give it once")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_fields, parse_constant=_Number)
# Slower: looks at every integer. For texts that may hold one Python would not tell from another.
_EXACT = json.JSONDecoder(
    object_pairs_hook=_unique_fields, parse_constant=_Number, parse_int=_exact_integer
)


# --- replies ------------------------------------------------------------------------------------


def reply_rows(rows: Rows, read: Read) -> Reply:
    """Raises TooLarge when Lambda could not send it."""
    size = len(rows.json)
    if size > MAX_RESULT_BYTES:
        _refuse_result(size, read)
    missing = f',"missing":{_json(rows.missing)}' if rows.missing else ""
    text = f'{{"statusCode":200,"body":[{rows.json.decode()}]{missing}}}'
    if len(text) > _SURELY_SMALL_CHARACTERS and (size := len(json.dumps(text))) > MAX_RESULT_BYTES:
        _refuse_result(size, read)
    return Reply(text, cache_status=_cache_status(rows, read))


def in_words(request: Request | None, reply: Reply) -> str:
    """A line for a log that somebody reads: what was asked, of how many, and what came of it."""
    if request is None or reply.status != 200:
        failure = json.loads(reply.text)["body"]
        return f"{reply.status} {failure['error']}: {failure['message'][:_LOGGED_CHARACTERS]}"
    match request:
        case Read(table, column, values):
            _, quote, detail = reply.cache_status.rstrip('"').partition('"')
            cached = detail if quote else "not asked"
            return f"read {table.name}: {len(values)} by {column.name}; cached: {cached}"
        case Write(table, rows):
            return f"write {table.name}: {len(rows)}"
        case Delete(table, keys):
            return f"delete {table.name}: {len(keys)}"
        case Invalidate(table, keys):
            return f"invalidate {table.name}: {'all' if keys is None else len(keys)}"


def _cache_status(rows: Rows, read: Read) -> str:
    """RFC 9211; `detail` counts the values that the cache answered, of those it was asked for."""
    if rows.hits is None:
        return f"{CACHE_NAME}; fwd=bypass" + '; detail="not in use"' * read.use_cache
    if rows.hits == rows.asked:
        return f'{CACHE_NAME}; hit; detail="{rows.hits} of {rows.asked}"'
    kind = "partial" if rows.hits else "miss"
    return f'{CACHE_NAME}; fwd={kind}; detail="{rows.hits} of {rows.asked}"'


def reply_written(keys: Sequence[Key]) -> Reply:
    return Reply(f'{{"statusCode":200,"body":"write success","ids":{_json(keys)}}}')


def reply_deleted(keys: Sequence[Key]) -> Reply:
    return Reply(f'{{"statusCode":200,"body":"delete success","deleted":{_json(keys)}}}')


def reply_invalidated() -> Reply:
    return Reply('{"statusCode":200,"body":"invalidate success"}')


def reply_error(error: HerocacheError) -> Reply:
    error = _in_terms_of_the_request(error)
    return _reply_failure(error.status, error.kind, str(error), error.retry_after_seconds)


def _in_terms_of_the_request(error: HerocacheError) -> HerocacheError:
    """Names the fields of a request where an error from below only tells what happened."""
    match error:
        case RowRejected():
            place = f"{SQLS}[{error.index}]{'.' * bool(error.column)}{error.column}"
            return BadRequest(f"{place}: {error.reason}")
        case TooManyRows():
            return TooLarge(
                f"{SQLS}: {error}; ask for fewer values at a time, or for one value with {LIMIT}"
                f" and {AFTER}"
            )
    return error


def reply_bug() -> Reply:
    """For an error nobody foresaw: nothing of it leaves the house."""
    return _reply_failure(500, "InternalError", "an internal error; the log has the details", None)


def _reply_failure(status: int, kind: str, message: str, retry_after: int | None) -> Reply:
    body = {"error": kind, "message": message}
    return Reply(_json({"statusCode": status, "body": body}), status, retry_after)


def _refuse_result(size: int, read: Read) -> NoReturn:
    less = "ask for fewer values at a time"
    if read.page:
        less = f"give a lower {LIMIT}"
    elif read.column is not read.table.key:
        less += f", or for one value with {LIMIT} and {AFTER}"
    raise TooLarge(
        f"{SQLS}: the rows make an answer of {size} bytes, at most {MAX_RESULT_BYTES}; {less}"
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
