"""Validation: a request in the form of `contract`, from a JSON value or a Lambda payload.

`json_body` reads that value from a body. Whatever is wrong is a BadRequest that names its place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from chalicelib.column_types import STRING_KEY, Integer, InvalidValue, String
from chalicelib.counts import Counts
from chalicelib.error_text import shown
from chalicelib.errors import BadRequest, TooLarge
from chalicelib.handlers.callers import own_key
from chalicelib.handlers.contract import (
    AFTER,
    BY,
    DELETE,
    DIRECTION,
    EVERY_ROW,
    FIELDS,
    FORM,
    FRESH,
    IDEMPOTENCY_KEY,
    INCREMENT,
    INVALIDATE,
    LIMIT,
    MAX_LIMIT,
    MAX_READ_VALUES,
    MAX_WRITE_ROWS,
    READ,
    REPEATABLE,
    REQUEST,
    REQUESTS,
    SQLS,
    TABLE,
    UNWATCH,
    USE_CACHE,
    WATCH,
    WATCHED,
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
from chalicelib.rows import Page
from chalicelib.tables import (
    DIRECTIONS,
    FORMS,
    JSON,
    NO_KEY,
    TABLES,
    Column,
    Key,
    Row,
    Table,
    tables_with,
)

_LIMIT = Integer(1, MAX_LIMIT)
_AMOUNT = Integer(-(2**32), 2**32)
# The highest key that a BIGINT column takes.
_HIGHEST_KEY = 2**63 - 1


def parse(payload: object, default_table: str, read_by: str | None, caller: str = "") -> Request:
    """The checked request in `payload`. `default_table` and `read_by` are the settings DB_TABLE and
    READ_BY. `caller`: who owns the idempotency key; empty where nobody is checked. Raises
    BadRequest, which names the place; TooLarge."""
    if not isinstance(payload, dict):
        raise BadRequest(f"body: expected a JSON object, got {_json_type(payload)}")
    for name in payload:
        if name not in FIELDS:
            raise BadRequest(f"{shown(name)}: no such field; there are {', '.join(FIELDS)}")
    request = _choice(payload, REQUEST, REQUESTS)
    table = _table(payload, default_table)
    use_cache = _flag(payload, USE_CACHE, True)
    if request in (WATCH, UNWATCH, WATCHED):
        return _of_watches(payload, table, request)
    for name in (DIRECTION, FORM):
        _reject_field(payload, name, "only a watch has it")
    if request == READ:
        _reject_field(payload, IDEMPOTENCY_KEY, "a read changes nothing")
        column = _column(payload, table, read_by)
        values = _values(column, _items(payload, MAX_READ_VALUES, "values"))
        page = _page(payload, table, column, values)
        return Read(table, column, values, use_cache, page, _flag(payload, FRESH, False))
    for name in (BY, LIMIT, AFTER, FRESH):
        _reject_field(payload, name, "only a read has it")
    if request == INVALIDATE:
        _reject_field(payload, IDEMPOTENCY_KEY, "an invalidate may be sent again without one")
        items = _items(payload, MAX_READ_VALUES, 'keys, or ["*"] for the whole table')
        if isinstance(table.key.type, Integer):
            _reject_every_row_among(items)
        return Invalidate(table, None if items == EVERY_ROW else _values(table.key, items))
    idempotency_key = own_key(_idempotency_key(payload), caller)
    if request == DELETE:
        keys = _values(table.key, _items(payload, MAX_WRITE_ROWS, "keys"))
        return Delete(table, keys, idempotency_key)
    if request == INCREMENT:
        deltas = _deltas(table, _items(payload, MAX_WRITE_ROWS, "increments"))
        return Increment(table, deltas, use_cache, idempotency_key)
    rows = _rows(table, _items(payload, MAX_WRITE_ROWS, "rows"))
    return Write(table, rows, use_cache, idempotency_key)


def _of_watches(
    payload: Mapping[str, object], table: Table, request: str
) -> Watch | Unwatch | Watched:
    for name in (BY, LIMIT, AFTER, FRESH):
        _reject_field(payload, name, "only a read has it")
    _reject_field(payload, IDEMPOTENCY_KEY, "this may be sent again without one")
    if not table.public:
        raise BadRequest(f"{TABLE}: {table.name} has no public keys; its rows cannot be watched")
    if request == WATCHED:
        for name in (SQLS, DIRECTION, FORM):
            _reject_field(payload, name, "the answer has all watches of the table")
        return Watched(table)
    items = _items(payload, MAX_READ_VALUES, 'keys, or ["*"] for every row')
    _reject_every_row_among(items)  # also where it could be the key of a row
    keys = None if items == EVERY_ROW else _values(table.key, items)
    form = _choice(payload, FORM, FORMS) if FORM in payload else JSON
    if request == WATCH:
        return Watch(table, keys, form, _choice(payload, DIRECTION, DIRECTIONS))
    direction = _choice(payload, DIRECTION, DIRECTIONS) if DIRECTION in payload else None
    return Unwatch(table, keys, form, direction)


def _reject_every_row_among(items: Sequence[object]) -> None:
    if "*" in items and items != EVERY_ROW:
        raise BadRequest(
            f'{SQLS}[{items.index("*")}]: "*" means every row, so it stands alone; send ["*"], or'
            " only keys"
        )


def _page(
    payload: Mapping[str, object], table: Table, column: Column, values: Sequence[Key]
) -> Page | None:
    """The page that is asked for; None for all rows. A page goes with one value only: the next page
    begins after the last key of this page, and keys rise only within the rows of one value."""
    if LIMIT not in payload and AFTER not in payload:
        return None
    name = LIMIT if LIMIT in payload else AFTER
    if column is table.key:
        instead = " or ".join([f'read with {BY}="{lookup}"' for lookup in table.lookups])
        raise BadRequest(
            f"{name}: goes with a read by a lookup, and this one is by {column.name}; leave it out"
            + f", or {instead}" * bool(instead)
        )
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
    """The type of AFTER. It takes any key that the column could hold, also one that this service
    would not write, and 0, which is less than every key."""
    key = table.key.type
    return Integer(0, _HIGHEST_KEY) if isinstance(key, Integer) else key


def _reject_field(payload: Mapping[str, object], name: str, why: str) -> None:
    if name in payload:
        raise BadRequest(f"{name}: {why}; leave it out")


def _idempotency_key(payload: Mapping[str, object]) -> str:
    """The idempotency key; empty where there is none."""
    if IDEMPOTENCY_KEY not in payload:
        return ""
    place = f"{IDEMPOTENCY_KEY} (header Idempotency-Key)"
    return str(_value(Column(IDEMPOTENCY_KEY, STRING_KEY), payload[IDEMPOTENCY_KEY], place))


def with_idempotency_key(payload: object, headers: Sequence[object]) -> object:
    """The payload, with the idempotency key of the `headers`, which are all the same, as a field. A
    request that changes nothing stays as it is, because a client may send the header with every
    request."""
    if not isinstance(payload, dict) or payload.get(REQUEST) in REPEATABLE:
        return payload
    header = headers[0]
    if any(other != header for other in headers):
        raise BadRequest("Idempotency-Key: two headers with different keys; give one")
    if payload.get(IDEMPOTENCY_KEY, header) != header:
        raise BadRequest(f"{IDEMPOTENCY_KEY}: the header Idempotency-Key has another one; give one")
    return {**payload, IDEMPOTENCY_KEY: header}


def _choice(payload: Mapping[str, object], name: str, known: Sequence[str], why: str = "") -> str:
    value = payload.get(name)
    if name not in payload:
        raise BadRequest(f"{name}: missing; give one of {_listed(known)}")
    if not isinstance(value, str) or value not in known:
        expected = f"one of {_listed(known)}" if len(known) > 1 else _listed(known)
        raise BadRequest(f"{name}: expected {expected}, got {shown(value)}{why}")
    return value


def _table(payload: Mapping[str, object], default: str) -> Table:
    tables = tables_with(default)
    return tables[_choice(payload, TABLE, tuple(tables)) if TABLE in payload else default]


def _column(payload: Mapping[str, object], table: Table, read_by: str | None) -> Column:
    if BY in payload:
        columns = "these columns" if table.lookups else "its key"
        why = f"; {table.name} can be read by {columns} only"
        return table.readable[_choice(payload, BY, tuple(table.readable), why)]
    return table.readable.get(read_by or "", table.key)


def _flag(payload: Mapping[str, object], name: str, default: bool) -> bool:
    value = payload.get(name, default)
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise BadRequest(
        f'{name}: expected "True" or "False", in any case, or a JSON boolean, got {shown(value)}'
    )


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
    try:
        rows = table.parse_many(items)
    except (TypeError, KeyError, InvalidValue):
        rows = [_explained_row(table, item, i) for i, item in enumerate(items)]
    reject_repeated(table, [row[0] for row in rows])
    return rows


def reject_repeated(table: Table, keys: Sequence[Key], where: str = SQLS) -> None:
    """Raises BadRequest where two items of the list `where` name one row."""
    named = [key for key in keys if key != NO_KEY]
    if len(set(named)) == len(named):
        return
    seen: dict[Key, int] = {}
    for i, key in enumerate(keys):
        if key != NO_KEY and seen.setdefault(key, i) != i:
            raise BadRequest(
                f"{where}[{i}].{table.key.name}: {shown(key)} is also the key of"
                f" {where}[{seen[key]}]; name a row once"
            )


def _deltas(table: Table, items: Sequence[Any]) -> Counts:
    if not table.counters:
        counters = [f"{t.name}.{name}" for t in TABLES.values() for name in t.counters]
        raise BadRequest(
            f"{TABLE}: {table.name} has no counter; the counters are {', '.join(counters)}"
        )
    if deltas := _similar_deltas(table, items):
        return deltas
    pairs = [_delta(table, item, f"{SQLS}[{i}]") for i, item in enumerate(items)]
    keys = [key for key, _ in pairs]
    reject_repeated(table, keys)
    return Counts.of_rows(keys, [amounts for _, amounts in pairs], table.counters)


def _similar_deltas(table: Table, items: Sequence[Any]) -> Counts | None:
    """Of items that all name the same counters and are good as they are, as nearly all are. Column
    by column, because these loops run in C. None where one of them must be looked at by itself."""
    key = table.key
    key_name = key.name
    try:
        names = [name for name in table.counters if name in items[0]]
        if not names or set(map(len, items)) != {len(names) + 1}:
            return None
        keys = [item[key_name] for item in items]
        columns = {name: [item[name] for item in items] for name in names}
    except (IndexError, KeyError, TypeError):  # none, or one is no object
        return None
    is_good = key.type.takes_all(keys) and len(set(keys)) == len(keys)
    if not is_good or not all(map(_AMOUNT.takes_all, columns.values())):
        return None
    return Counts(keys, columns, is_whole=True)


def _delta(table: Table, item: object, place: str) -> tuple[Key, dict[str, int]]:
    key, counters = table.key.name, table.counters
    expected = f"{key} and what to add to {' or '.join(counters)}"
    if not isinstance(item, dict):
        raise BadRequest(f"{place}: expected an object with {expected}, got {_json_type(item)}")
    for name in item:
        if name != key and name not in counters:
            raise BadRequest(f"{place}: {shown(name)} is no counter; give {expected}")
    if key not in item:
        raise BadRequest(f"{place}.{key}: missing; give {expected}")
    if len(item) == 1:
        raise BadRequest(f"{place}: nothing to add; give {expected}")
    amounts = {
        name: int(_value(Column(name, _AMOUNT), item[name], f"{place}.{name}"))
        for name in counters
        if name in item
    }
    return _value(table.key, item[key], f"{place}.{key}"), amounts


def _explained_row(table: Table, item: object, index: int) -> Row:
    """As `Table.parse_many`, but slower: raises BadRequest, which names the value that is wrong."""
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
            _given(table, column, item[column.name], f"{place}.{column.name}")
            if column.name in item
            else _absent(table, column, place)
            for column in table.columns
        ]
    )


def _given(table: Table, column: Column, value: object, place: str) -> Key:
    try:
        return _value(column, value, place)
    except BadRequest as error:
        if column is table.key and table.auto_key and value in (None, "", 0):
            raise BadRequest(f"{error}; leave it out, and the database gives one") from error
        raise


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
