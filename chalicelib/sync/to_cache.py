"""The public keys follow the rows."""

from collections.abc import Sequence

from chalicelib.cache import PublicRow, instead_of
from chalicelib.sync import public_values
from chalicelib.sync.public_side import PublicSide
from chalicelib.sync.public_values import NotARow
from chalicelib.sync.runs import Record
from chalicelib.sync.step import Step, digests, named, without
from chalicelib.tables import JSON, TO_CACHE, Key


class ToCache:
    """For one run."""

    def __init__(self, public_side: PublicSide, record: Record) -> None:
        self._public_side = public_side
        self._record = record

    def follow(self, step: Step) -> None:
        """Whatever stands under a public key, the row counts: nothing is recorded as unfinished."""
        rows, now = step.rows, step.now
        if step.form == JSON and set(now.found.values()) == {None} and self.set_new(step):
            return
        wanted = self._public_side.shown(step)
        stale: Sequence[Key] = ()
        if now.found != wanted:
            stale = [
                key
                for key, found in now.found.items()
                if found != wanted.get(key) and key not in rows.odd
            ]
        if stale:
            self._public_side.check(step)
        for key in stale if step.seen else ():
            self._tell_conflict(step, key)
        puts = [PublicRow(key, None, instead_of(now.found[key]), wanted.get(key)) for key in stale]
        not_set = self._public_side.put(step, puts)
        now.seen |= digests(rows, without(not_set | rows.odd.keys(), now.found))

    def set_new(self, step: Step) -> bool:
        """Set the public keys of all rows, if nothing is there. Whether all of them were set; some
        may be also where it returns False."""
        texts, now = step.rows.texts, step.now
        keys = [*texts]
        if keys != [*now.found]:
            return False
        self._public_side.check(step)
        self._public_side.put_new(step)
        if None in now.found.values():
            return False
        now.seen |= zip(keys, public_values.digests(texts.values()))
        return True

    def _tell_conflict(self, step: Step, key: Key) -> None:
        """Where both sides were changed: the row counts."""
        last = step.seen.get(key)
        if not last:
            return
        table, row, found = step.table, step.row(key), step.now.found[key]
        if found is None or public_values.digest(table, row) == last:
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
            step.public_key(key),
            "both were changed: the database's row counts",
            database=named(table, row),
            redis=other,
        )
