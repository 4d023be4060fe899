"""Public keys that hold a whole row, all columns in order, as the service writes them: many of them
are taken apart at once.

They are cut behind the names of columns and compared piece by piece with what the database holds,
because these loops run in C.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter

from chalicelib.cache import Found
from chalicelib.column_types import String
from chalicelib.tables import Column, Key, Table

# One public key that holds no such row leaves out so many.
PLAIN_ROWS = 200

# A character that JSON shows in another way.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


def plain_rows(
    table: Table, before: Mapping[Key, bytes], found: Mapping[Key, Found]
) -> tuple[dict[Key, bytes], Mapping[Column, Sequence[str]]]:
    """What `encode` makes of the rows under public keys that hold a whole row with all columns in
    order; and the columns in which these rows differ from the JSON `before`, with their values as
    texts. Rows that are not there are left out, and perhaps others."""
    held = {key: text for key, text in found.items() if type(text) is bytes and key in before}
    if b"\\" in b"".join(before.values()):  # the database may write what needs an escape otherwise
        held = {key: text for key, text in held.items() if b"\\" not in before[key]}
    joined = b"".join(held.values())
    if b'": ' in joined or b', "' in joined:
        held = {key: _without_blanks(text) for key, text in held.items()}
    plain: dict[Key, bytes] = {}
    columns: list[list[str]] = [[] for _ in table.columns[1:]]
    changed: set[Column] = set()
    keys, new = [*held], [*held.values()]
    old = [before[key] for key in keys]
    for start in range(0, len(keys), PLAIN_ROWS):
        part = slice(start, start + PLAIN_ROWS)
        own = _columns(table, keys[part], old[part], new[part])
        if own is None:
            continue
        plain |= zip(keys[part], new[part])
        changed |= own[1]
        for column, pieces in zip(columns, own[0]):
            column += pieces
    return plain, {
        column: [*_values(piece, pieces)]
        for column, piece, pieces in zip(table.columns[1:], _pieces(table)[2:], columns)
        if column in changed
    }


def _columns(
    table: Table, keys: Sequence[Key], before: Sequence[bytes], after: Sequence[bytes]
) -> tuple[Sequence[Sequence[str]], set[Column]] | None:
    """The pieces of `after` with the values, column by column without the key, and the columns in
    which they differ from `before`. `before`: what `encode_many` makes of rows with these `keys`,
    without escapes; `after`: something under the same keys. None where that is not what
    `encode_many` makes of rows with these keys, or holds a value that requests would not take, or a
    character that needs an escape."""
    try:
        old, new = _cut_at_names(before), _cut_at_names(after)
    except UnicodeDecodeError:
        return None
    pieces = _pieces(table)
    width = len(pieces) + 1  # with the piece between two rows
    is_whole = len(new) == len(old) == len(keys) * width - 1
    if not is_whole or any(new[place::width] != old[place::width] for place in (0, 1)):
        return None
    if not table.key.type.takes_all(keys):
        return None
    columns = []
    changed = set()
    for place, column in enumerate(table.columns[1:], 2):
        own = new[place::width]
        is_changed = own != old[place::width]
        values = [*_values(pieces[place], own if is_changed else {*own})]
        if is_changed:
            changed.add(column)
            if [*map(pieces[place].__mod__, values)] != own:
                return None
        if _ESCAPED.search("".join(values)) or not column.type.takes_texts(values):
            return None
        columns.append(own)
    return columns, changed


@lru_cache(maxsize=16)
def _pieces(table: Table) -> Sequence[str]:
    """What the table's `json_template` becomes, cut behind its names: first the name of the key,
    then for each column a piece with a %s for its value."""
    marks = ['"%s"' if isinstance(c.type, String) else "%s" for c in table.columns]
    return (table.json_template % tuple(marks)).split('":')


def _values(piece: str, texts: Iterable[str]) -> Iterable[str]:
    """What stands at the %s of the `piece` in each of these."""
    start, end = map(len, piece.split("%s"))
    return map(itemgetter(slice(start, -end)), texts)


def _cut_at_names(texts: Iterable[bytes]) -> list[str]:
    """The pieces of all texts, with a line feed between two of them: no row has one, so each is
    where it should be. A value that begins with a colon makes one more. Raises
    UnicodeDecodeError."""
    return b'":\n":'.join(texts).decode().split('":')


def _without_blanks(text: bytes) -> bytes:
    """The same JSON without a blank behind a colon or a comma, as other encoders set it."""
    pieces = text.split(b'"')
    pieces[::2] = [each.replace(b": ", b":").replace(b", ", b",") for each in pieces[::2]]
    return b'"'.join(pieces)
