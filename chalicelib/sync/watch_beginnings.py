"""What both sides have when a watch on one row begins in direction TO_DATABASE, or turns to it.

Before that a write may have set the public key. From then on only clients change it. So it is
recorded once whether the row stands there, or a client has changed that since the last run. Until
then a run looks past the watch. What is recorded of a turn counts unless another turn has come.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from chalicelib.cache import PublicStore, public_forms
from chalicelib.db import MICROSECONDS_NOW, Database
from chalicelib.sync import public_values
from chalicelib.sync.seen_ranges import SeenRange, rows_by_range
from chalicelib.sync.step import without
from chalicelib.sync.unfinished_step import touched
from chalicelib.sync.watches import ENDED, WatchedRow, Watches
from chalicelib.tables import FORMS, TO_CACHE, Key, Table

BATCH_ROWS = 1_000


class WatchBeginnings:
    def __init__(self, database: Database, store: PublicStore, watches: Watches) -> None:
        self._database = database
        self._store = store
        self._watches = watches

    def rows_then(self, table: Table, keys: Sequence[Key]) -> Mapping[Key, str]:
        """Asked for before watches begin or turn: the digests of these rows, without those that
        JSON cannot show. Raises DatabaseUnavailable, SchemaMismatch."""
        texts = self._texts(table, keys)
        return dict(zip(texts, public_values.digests(texts.values())))

    def record(
        self,
        table: Table,
        forms: Iterable[str] = FORMS,
        keys: Sequence[Key] | None = None,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Record it of the watches on rows with `keys`; None: of all that have begun or turned.
        `between`: called after each 1,000 rows. Anybody may, and more than one at once. Raises
        CacheUnavailable, DatabaseUnavailable, OutcomeUnknown, and whatever `between` raises."""
        for form in forms:
            # In direction TO_CACHE what it remembers tells nothing: writes have set public keys.
            starts = self._watches.ranges.starts(table, form)
            if self._watches.of_every_row(table, form) in (TO_CACHE, ENDED):
                starts = []
            if not starts:
                self._database.run(self._watches.recorded_unknown(table, form))
            rows = self._watches.begun_or_turned(table, form, keys)
            if rows:
                # Those that know of no turn may set public keys.
                self._database.wait_for_writers(table)
            known = self._known(table, form, starts, rows)
            for at in range(0, len(rows), BATCH_ROWS):
                self._record(table, form, known, rows[at : at + BATCH_ROWS])
                between()

    def _record(
        self, table: Table, form: str, known: SeenRange, watched: Sequence[WatchedRow]
    ) -> None:
        keys = [row.key for row in watched]
        [[(now,)]] = self._database.run((f"SELECT {MICROSECONDS_NOW}", ()))
        # What a run has read of the rows before this is set under no public key any more.
        self._store.stamp_many(table, form, keys, int(now))
        # First the rows: a write that follows leaves the public keys as they are.
        texts = self._texts(table, keys)
        found = dict(zip(keys, self._store.read_many(table, form, keys)))
        shown = dict(zip(texts, public_forms(table, form, [*texts.values()])))
        now_equal = [key for key, own in found.items() if own and own == shown.get(key)]
        equal = dict(zip(now_equal, public_values.digests([texts[key] for key in now_equal])))
        # A write since then has left the public key as it was.
        equal |= {
            row.key: row.row_then
            for row in watched
            if row.row_then
            and row.key not in equal
            and public_values.digest_of(table, row.key, found[row.key]) == row.row_then
        }
        others = without(equal, found)
        forgotten = {*touched(table, known.seen, known.unfinished, others), *equal}
        seen = {key: known.seen[key] for key in known.seen.keys() & others.keys() - forgotten}
        both = SeenRange(seen | equal, without(forgotten, {**known.unfinished}))
        self._database.run(*self._watches.recorded(table, form, watched, both))

    def _texts(self, table: Table, keys: Sequence[Key]) -> Mapping[Key, bytes]:
        _, rows = self._database.fetch_dated(table, keys)
        return {key: text for key, text in table.encode_each(rows).items() if text}

    def _known(
        self, table: Table, form: str, starts: Sequence[str], watched: Sequence[WatchedRow]
    ) -> SeenRange:
        """What both had last, by the watch itself; where that is new, by the one on every row. No
        step of a run changes that: it would have begun before the watch did."""
        seen = {row.key: row.seen for row in watched if row.seen}
        unfinished = {row.key: row.unfinished for row in watched if row.unfinished}
        new = [row for row in watched if not row.seen and not row.synced_at]
        if new and starts:
            ordered = self._database.with_order(table)
            for start, rows in rows_by_range(ordered, starts, new):
                keys = {row.key for row in rows}
                every = self._watches.ranges.seen(table, form, start)
                seen |= {key: every.seen[key] for key in keys & every.seen.keys()}
                unfinished |= {key: every.unfinished[key] for key in keys & every.unfinished.keys()}
        return SeenRange(seen, unfinished)
