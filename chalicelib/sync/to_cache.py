"""The public keys follow the rows."""

from collections.abc import Mapping, Sequence

from chalicelib.cache import Found, PublicRow, instead_of
from chalicelib.sync import public_values
from chalicelib.sync.public_side import PublicSide
from chalicelib.sync.public_values import NotARow
from chalicelib.sync.range_rows import InStep, Rows, digests, named, without
from chalicelib.sync.runs import Record
from chalicelib.sync.unfinished_step import UnfinishedStep
from chalicelib.sync.watches import Watches
from chalicelib.tables import JSON, TO_CACHE, Key, Row, Table


class ToCache:
    """For one run."""

    def __init__(self, public_side: PublicSide, watches: Watches, record: Record) -> None:
        self._public_side = public_side
        self._watches = watches
        self._record = record

    def follow(
        self,
        table: Table,
        form: str,
        rows: Rows,
        seen: Mapping[Key, str],
        now: InStep,
        step: UnfinishedStep,
    ) -> None:
        """Whatever stands under a public key, the row counts: nothing is recorded for `step`."""
        if form == JSON and set(now.found.values()) == {None} and self.set_new(table, rows, now):
            return
        wanted = self._public_side.shown(table, form, TO_CACHE, rows, now)
        differing: Sequence[Key] = ()
        if now.found != wanted:
            differing = [
                key
                for key, found in now.found.items()
                if found != wanted.get(key) and key not in rows.odd
            ]
        stale = self._watches.still(table, form, TO_CACHE, differing)
        left = {*differing}.difference(stale) if len(stale) < len(differing) else set()
        for key in stale if seen else ():
            if seen.get(key):
                row = rows.row(table, key)
                self._tell_conflict(table, form, key, row, seen, now.found[key])
        puts = [PublicRow(key, None, instead_of(now.found[key]), wanted.get(key)) for key in stale]
        not_set = self._public_side.put(table, form, TO_CACHE, rows, puts, now)
        left |= not_set | rows.odd.keys()
        now.seen |= digests(rows, without(left, now.found))

    def set_new(self, table: Table, rows: Rows, now: InStep) -> bool:
        """Set the public keys of all rows, if nothing is there. Whether all of them were set; some
        may be also where it returns False."""
        keys = [*rows.texts]
        if keys != [*now.found] or self._watches.still(table, JSON, TO_CACHE, keys) != keys:
            return False
        self._public_side.put_new(table, TO_CACHE, rows, now)
        if None in now.found.values():
            return False
        now.seen |= zip(keys, public_values.digests(rows.texts.values()))
        return True

    def _tell_conflict(
        self,
        table: Table,
        form: str,
        key: Key,
        row: Row | None,
        seen: Mapping[Key, str],
        found: Found,
    ) -> None:
        """Both sides were changed: the row counts."""
        last = seen.get(key)
        if not last or found is None or public_values.digest(table, row) == last:
            return
        if isinstance(found, bytes) and public_values.digests([found]) == [last]:
            return
        try:
            values = public_values.parse(table, key, found)
        except NotARow as error:
            other: object = str(error)
        else:
            assert values is not None
            whole = public_values.over(table, key, values, row)
            if public_values.digest(table, whole) == last:
                return
            other = named(table, whole) or dict(values)
        self._record.report(
            TO_CACHE,
            table.public_key(form, key),
            "both were changed: the database's row counts",
            database=named(table, row),
            redis=other,
        )
