"""Public keys that hold a whole row, all columns in order, as the service writes them: many of them
are taken apart at once.

They are cut at their quotes and compared piece by piece with what the database holds, because these
loops run in C.
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
_ESCAPED = re.compile(r"[\\\x00-\x1f]")


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
    keys = [*held]
    for start in range(0, len(keys), PLAIN_ROWS):
        after = {key: held[key] for key in keys[start : start + PLAIN_ROWS]}
        own = _columns(table, {key: before[key] for key in after}, after)
        if own is None:
            continue
        plain |= after
        changed |= own[1]
        for column, texts in zip(columns, own[0]):
            column += texts
    return plain, {c: texts for c, texts in zip(table.columns[1:], columns) if c in changed}


def _columns(
    table: Table, before: Mapping[Key, bytes], after: Mapping[Key, bytes]
) -> tuple[Sequence[Sequence[str]], set[Column]] | None:
    """The values in `after` as texts, column by column without the key, and the columns in which
    they differ from `before`. `before`: what `encode_many` makes of rows, without escapes; `after`:
    something under the same keys, in the same order. None where that is not what `encode_many`
    makes of rows with these keys, or holds a value that requests would not take, or a character
    that needs an escape."""
    try:
        old, new = [_cut_at_quotes(texts.values()) for texts in (before, after)]
    except UnicodeDecodeError:
        return None
    pieces = _pieces(table)
    width = len(pieces) + 1  # with the piece between two rows
    if len(new) != len(old) or not table.key.type.takes_all([*before]):
        return None
    columns = []
    changed = set()
    for place, (piece, column) in enumerate(pieces):
        own = new[place::width]
        is_changed = own != old[place::width]
        if column in (None, table.key):
            if is_changed:
                return None
            continue
        start, end = map(len, piece.split("%s"))
        texts = [*map(itemgetter(slice(start, -end)), own)] if start else own
        if is_changed:
            changed.add(column)
            if [*map(piece.__mod__, texts)] != own:
                return None
        if _ESCAPED.search("".join(texts)) or not column.type.takes_texts([*{*texts}]):
            return None
        columns.append(texts)
    return columns, changed


@lru_cache(maxsize=16)
def _pieces(table: Table) -> Sequence[tuple[str, Column | None]]:
    """What the table's `json_template` becomes, cut at its quotes: each piece, and the column whose
    value stands at its %s."""
    marks = ['"%s"' if isinstance(c.type, String) else "%s" for c in table.columns]
    columns = iter(table.columns)
    pieces = (table.json_template % tuple(marks)).split('"')
    return [(piece, next(columns) if "%s" in piece else None) for piece in pieces]


def _cut_at_quotes(texts: Iterable[bytes]) -> list[str]:
    """The pieces of all texts, with a line feed between two of them: no row has one, so each is
    where it should be. Raises UnicodeDecodeError."""
    return b'"\n"'.join(texts).decode().split('"')


def _without_blanks(text: bytes) -> bytes:
    """The same JSON without a blank behind a colon or a comma, as other encoders set it."""
    pieces = text.split(b'"')
    pieces[::2] = [each.replace(b": ", b":").replace(b", ", b",") for each in pieces[::2]]
    return b'"'.join(pieces)
