"""The answers to clients: the JSON text of each answer and of each error.

This module chooses the shape of an answer. It also words an error from below in the caller's
terms: only here an error names the field of the request that it is about.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from chalicelib.config import MAX_RESULT_BYTES
from chalicelib.counts import Counts
from chalicelib.errors import (
    BadRequest,
    CounterOutOfRange,
    HerocacheError,
    KeyTooFar,
    NoKeyLeft,
    RowRejected,
    TooLarge,
    TooManyRows,
)
from chalicelib.handlers.contract import (
    AFTER,
    LIMIT,
    SQLS,
    TABLE,
    Delete,
    Increment,
    Invalidate,
    Read,
    Request,
    Unwatch,
    Watch,
    Watched,
    Write,
)
from chalicelib.rows import Rows
from chalicelib.tables import JSON, Key, Table

if TYPE_CHECKING:  # a read needs none of the sync
    from chalicelib.sync import WatchedRow

# How the header Cache-Status names this cache.
CACHE_NAME = "herocache"
# A shorter text fits into the JSON that Lambda makes of an answer, whatever is in it: the longest
# escape of one character is twelve bytes (an emoji, for example, becomes two escapes of six).
_SURELY_SMALL_CHARACTERS = MAX_RESULT_BYTES // 12
_LOGGED_CHARACTERS = 300


@dataclass(frozen=True)
class Reply:
    """`text`: the whole answer as JSON, with `status` in it as `statusCode`. `cache_status`: the
    value of the header Cache-Status, which only the answer to a read has."""

    text: str
    status: int = 200
    retry_after_seconds: int | None = None
    cache_status: str = ""


def of_rows(rows: Rows, read: Read) -> Reply:
    """The answer to a read. Raises TooLarge where Lambda could not send the answer."""
    size = len(rows.json)
    if size > MAX_RESULT_BYTES:
        _raise_too_large(size, read)
    missing = f',"missing":{_json(rows.missing)}' if rows.missing else ""
    text = f'{{"statusCode":200,"body":[{rows.json.decode()}]{missing}}}'
    if len(text) > _SURELY_SMALL_CHARACTERS and (size := len(json.dumps(text))) > MAX_RESULT_BYTES:
        _raise_too_large(size, read)
    return Reply(text, cache_status=_cache_status(rows, read))


def of_write(keys: Sequence[Key]) -> Reply:
    return Reply(f'{{"statusCode":200,"body":"write success","ids":{_json(keys)}}}')


def of_delete(keys: Sequence[Key]) -> Reply:
    return Reply(f'{{"statusCode":200,"body":"delete success","deleted":{_json(keys)}}}')


def of_increment(table: Table, values: Counts) -> Reply:
    """`values`: of the counters, as they are now."""
    columns = values.columns
    if values.keys and values.is_whole:
        named = (table.key.type.encode_all(values.keys), *columns.values())
        cells: list[object] = [None] * (len(named) * len(values.keys))
        for place, column in enumerate(named):
            cells[place :: len(named)] = column
        each = ",".join([f'"{name}":%s' for name in (table.key.name, *columns)])
        text = (f"{{{each}}}," * len(values.keys))[:-1] % tuple(cells)
    else:
        rows = zip(values.keys, values.rows())
        text = _json([{table.key.name: key, **own} for key, own in rows])[1:-1]
    return Reply(f'{{"statusCode":200,"body":"increment success","values":[{text}]}}')


def of_invalidate() -> Reply:
    return Reply('{"statusCode":200,"body":"invalidate success"}')


def of_watch(watched: int) -> Reply:
    return Reply(f'{{"statusCode":200,"body":"watch success","watched":{watched}}}')


def of_unwatch() -> Reply:
    return Reply('{"statusCode":200,"body":"unwatch success"}')


def of_watched(rows: "Sequence[WatchedRow]") -> Reply:
    """Raises TooLarge where Lambda could not send the answer."""
    body = [
        {"key": row.key, "direction": row.direction, "synced_at": row.synced_at}
        | ({} if row.form == JSON else {"form": row.form})
        for row in rows
    ]
    text = f'{{"statusCode":200,"body":{_json(body)}}}'
    if len(text) > MAX_RESULT_BYTES // 2:  # quotes are escaped
        raise TooLarge(f"{len(rows)} rows are watched, too many for an answer; see table watched")
    return Reply(text)


def of_error(error: HerocacheError) -> Reply:
    error = _in_terms_of_the_request(error)
    return _failure(error.status, error.kind, str(error), error.retry_after_seconds)


def of_bug() -> Reply:
    """The answer to an unexpected error. The client gets none of the error's text, because it may
    hold something internal."""
    return _failure(500, "InternalError", "an internal error; the log has the details", None)


def log_line(request: Request | None, reply: Reply) -> str:
    """A line for the log: the kind of request, how many values, and the result."""
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
        case Increment(table, deltas):
            return f"increment {table.name}: {len(deltas.keys)}"
        case Watch(table, keys) | Unwatch(table, keys):
            kind = type(request).__name__.lower()
            return f"{kind} {table.name}: {'all' if keys is None else len(keys)}"
        case Watched(table):
            return f"watched {table.name}"
        case Invalidate(table, keys):
            return f"invalidate {table.name}: {'all' if keys is None else len(keys)}"


def _cache_status(rows: Rows, read: Read) -> str:
    """The value of the header, in the form of RFC 9211. Its `detail` says how many of the distinct
    values the cache answered, or why a read that wanted the cache went past it."""
    if rows.hits is None:
        why = "pages are not cached" if read.page else "not in use"
        return f"{CACHE_NAME}; fwd=bypass" + f'; detail="{why}"' * read.use_cache
    if rows.hits == rows.asked:
        return f'{CACHE_NAME}; hit; detail="{rows.hits} of {rows.asked}"'
    kind = "partial" if rows.hits else "miss"
    return f'{CACHE_NAME}; fwd={kind}; detail="{rows.hits} of {rows.asked}"'


def _in_terms_of_the_request(error: HerocacheError) -> HerocacheError:
    """The same error, with the field of the request in its text. An error from below tells what
    happened and knows no fields."""
    match error:
        case RowRejected():
            return BadRequest(f"{_place(error.index, error.column)}: {error.reason}")
        case CounterOutOfRange():
            error.args = (f"{_place(error.index, error.column)}: {error.reason}",)
        case KeyTooFar() | NoKeyLeft():
            return BadRequest(f"{TABLE} {error}")
        case TooManyRows():
            return TooLarge(
                f"{SQLS}: {error}; ask for fewer values at a time, or for one value with {LIMIT}"
                f" and {AFTER}"
            )
    return error


def _place(index: int, column: str) -> str:
    return f"{SQLS}[{index}]{'.' * bool(column)}{column}"


def _failure(status: int, kind: str, message: str, retry_after: int | None) -> Reply:
    body = {"error": kind, "message": message}
    return Reply(_json({"statusCode": status, "body": body}), status, retry_after)


def _raise_too_large(size: int, read: Read) -> NoReturn:
    less = "ask for fewer values at a time"
    if read.page:
        less = f"give a lower {LIMIT}"
    elif read.column is not read.table.key:
        less += f", or for one value with {LIMIT} and {AFTER}"
    raise TooLarge(
        f"{SQLS}: the answer would have {size} bytes, at most {MAX_RESULT_BYTES}; {less}"
    )


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
