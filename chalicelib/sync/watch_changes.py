"""The requests `watch` and `unwatch`: watches begin, turn round and end.

Where a watch ends, the public keys that followed its rows go.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence

from chalicelib.cache import Late, PublicStore
from chalicelib.db import MICROSECONDS_NOW, Database, Statement
from chalicelib.errors import CacheUnavailable, PublicKeysUnavailable
from chalicelib.sync.runs import RANGE_SECONDS, turn
from chalicelib.sync.seen_ranges import keys_of
from chalicelib.sync.watch_beginnings import WatchBeginnings
from chalicelib.sync.watches import ENDED, LEFT, Watches, batches, condition_of
from chalicelib.tables import EVERY_ROW, FORMS, TO_CACHE, TO_DATABASE, Key, Table

PAGE_ROWS = 2_000
DELETE_TRIES = 3

# In the table that is changed: MySQL wants to read it into another one first.
_EVERY = (
    "EXISTS (SELECT 1 FROM (SELECT DISTINCT direction FROM watched WHERE table_name = %s"
    " AND form = %s AND row_key = %s) AS every_row WHERE every_row.direction = %s)"
)


class WatchChanges:
    def __init__(self, database: Database, store: PublicStore, watches: Watches) -> None:
        self._database = database
        self._store = store
        self._watches = watches
        self.beginnings = WatchBeginnings(database, store, watches)

    def add(self, table: Table, keys: Sequence[Key] | None, form: str, direction: str) -> int:
        """Watch the rows with `keys`; None: every row. How many rows that are. A write that may not
        know of the watch is committed by then: the next run sees its rows. Raises
        DatabaseUnavailable, OutcomeUnknown, PublicKeysUnavailable, SchemaMismatch; the rows may be
        watched then."""
        texts = [EVERY_ROW] if keys is None else list(dict.fromkeys(map(str, keys)))
        beginning = 1 + secrets.randbits(62)  # 0: plain SQL has added the watch
        then: Mapping[str, str] = {}
        if keys is not None and direction == TO_DATABASE:
            then = {str(key): text for key, text in self.beginnings.rows_then(table, keys).items()}
        changes: list[Statement] = []
        for batch in batches(texts):
            changes += turn(*condition_of(table, form, [EVERY_ROW, *batch]))
            marks = ",".join(["(%s,%s,%s,%s,%s,NULLIF(%s,''))"] * len(batch))
            values = [
                value
                for text in batch
                for value in (table.name, text, form, direction, beginning, then.get(text, ""))
            ]
            changes.append(
                (
                    "INSERT INTO watched (table_name, row_key, form, direction, beginning,"
                    f" row_then) VALUES {marks} ON DUPLICATE KEY UPDATE"
                    # Of one that is not recorded yet the row from before that one counts.
                    " row_then = IF(direction = VALUES(direction) AND beginning IS NOT NULL,"
                    " COALESCE(row_then, VALUES(row_then)), VALUES(row_then)),"
                    " direction = VALUES(direction), beginning = VALUES(beginning)",
                    values,
                )
            )
        self._change(table, changes)

        def tell() -> None:
            self._store.delete_note(table)
            if keys is not None and direction == TO_DATABASE:
                self.beginnings.record(table, [form], keys)

        self._tell_redis("the rows are watched", tell)
        return self._database.count(table) if keys is None else len(texts)

    def remove(
        self, table: Table, keys: Sequence[Key] | None, form: str, direction: str | None
    ) -> None:
        """End these watches, where they have this `direction` or it is None. The public keys that
        followed their rows go; others stay, because they are their clients'. Raises
        DatabaseUnavailable, OutcomeUnknown, PublicKeysUnavailable."""
        texts = [EVERY_ROW] if keys is None else list(dict.fromkeys(map(str, keys)))
        changes: list[Statement] = []
        for batch in batches(texts):
            condition, values = condition_of(table, form, batch)
            changes += turn(condition, values)
            if direction != TO_DATABASE:
                end = f"UPDATE watched SET direction = %s{condition} AND direction = %s"
                changes.append((end, (ENDED, *values, TO_CACHE)))
            if direction != TO_CACHE and keys is not None:
                # With a time, where what the one on every row remembers is older.
                leave = (
                    "UPDATE watched SET direction = %s, synced_at ="
                    " IF(beginning IS NULL, COALESCE(synced_at, UTC_TIMESTAMP(6)), synced_at)"
                    f"{condition} AND direction = %s AND {_EVERY}"
                )
                every = (table.name, form, EVERY_ROW, TO_DATABASE)
                changes.append((leave, (LEFT, *values, TO_DATABASE, *every)))
            others, own = (" AND direction = %s", direction) if direction else ("", "")
            delete = f"DELETE FROM watched{condition} AND direction NOT IN (%s, %s){others}"
            changes.append((delete, (*values, ENDED, LEFT, *filter(None, [own]))))
        was = self._watches.of_every_row(table, form) if keys is None else ""
        self._change(table, changes)
        left: list[tuple[str, str]] = []

        def tell() -> None:
            left.extend(self.finish(table))
            self._store.delete_note(table)
            if keys is None:
                if was != TO_CACHE:
                    self.beginnings.record(table, [form])
                self._watches.ranges.clear(table, form)

        self._tell_redis("the watches have ended", tell)
        if any(own == form and text in texts for own, text in left):
            raise PublicKeysUnavailable(
                "the watches have ended, but other clients change some of the public keys all the"
                " time, so these could not be deleted: send the request again"
            )

    def _change(self, table: Table, changes: Sequence[Statement]) -> None:
        """All or none of them. By its return every transaction that may not know them has ended."""
        self._database.transact(lambda transaction: transaction.queue(*changes))
        # Not in one transaction: a run would wait for these writers, too.
        self._database.wait_for_writers(table)

    def _tell_redis(self, done: str, tell: Callable[[], None]) -> None:
        """`tell` it, so that the next run looks. A process without Redis leaves that to others."""
        if not self._store.is_configured:
            return
        try:
            tell()
        except (CacheUnavailable, Late) as error:
            why = f" ({error})" if str(error) else ""
            raise PublicKeysUnavailable(
                f"{done}, but Redis could not be told{why}: send the request again"
            ) from error

    def finish(self, table: Table) -> list[tuple[str, str]]:
        """Delete the public keys of watches that have ENDED, and then these watches: whoever comes
        next goes on where this fails. Form and key of those watches that are left, because somebody
        changes a public key all the time. Raises CacheUnavailable, Late, DatabaseUnavailable."""
        [found] = self._database.run(
            (
                "SELECT form, row_key FROM watched WHERE table_name = %s AND direction = %s",
                (table.name, ENDED),
            )
        )
        left: list[tuple[str, str]] = []
        for form in FORMS:
            texts = [text for own, text in found if own == form]
            own_left: set[str] = set()
            for batch in batches([text for text in texts if text != EVERY_ROW]):
                keys = {key: str(key) for key in keys_of(table, batch)}
                own_left |= self._delete_public(table, form, keys)
            if EVERY_ROW in texts:
                for page in self._keys_of_every_row(table, form):
                    kept = self._watches.among(table, form, page)
                    gone = {key: EVERY_ROW for key in page if key not in kept}
                    own_left |= self._delete_public(table, form, gone)
            if EVERY_ROW in texts and EVERY_ROW not in own_left:
                # Before nobody can tell that this was in direction TO_CACHE.
                self._watches.ranges.clear(table, form, ENDED)
            if texts:
                self._store.delete_note(table)
            for batch in batches([text for text in texts if text not in own_left]):
                condition, values = condition_of(table, form, batch)
                ended = f"{condition} AND direction = %s"
                # What a watch on every row had last is older than the watch that has ended.
                leave = (
                    "UPDATE watched SET direction = %s, seen = NULL, unfinished = NULL,"
                    f" synced_at = UTC_TIMESTAMP(6){ended} AND row_key <> %s AND {_EVERY}"
                )
                every = (EVERY_ROW, table.name, form, EVERY_ROW, TO_DATABASE)
                self._database.run(
                    (leave, (LEFT, *values, ENDED, *every)),
                    (f"DELETE FROM watched{ended}", (*values, ENDED)),
                )
            left += [(form, text) for text in own_left]
        return left

    def _keys_of_every_row(self, table: Table, form: str) -> Iterator[Sequence[Key]]:
        """Of the rows that runs have seen, and of those that are there: a write may have set their
        public keys at once."""
        for after in self._watches.ranges.starts(table, form):
            known = self._watches.ranges.seen(table, form, after)
            yield list(known.seen.keys() | known.unfinished.keys())
        last, is_more = None, True
        while is_more:
            _, rows, is_more = self._database.fetch_range(table, last, None, PAGE_ROWS)
            yield [*rows]
            last = next(reversed([*rows]), None)

    def _delete_public(self, table: Table, form: str, keys: Mapping[Key, str]) -> set[str]:
        """Delete the public keys of rows, each with the text that names its watch, but for those
        that somebody watches again: from then on they may hold what a client has written. This
        process may sleep before that: then Redis rejects it. What a late write or a client changes
        meanwhile is tried again. The texts of those where that was of no use."""
        left = keys
        for _ in range(DELETE_TRIES):
            if not left:
                break
            until = self._store.deadline(RANGE_SECONDS)
            found = dict(zip(left, self._store.read_many(table, form, [*left])))
            condition, values = condition_of(table, form, [*dict.fromkeys(left.values())])
            [ended] = self._database.run(
                (
                    f"SELECT row_key, {MICROSECONDS_NOW} FROM watched{condition}"
                    " AND direction = %s",
                    (*values, ENDED),
                )
            )
            times = dict(ended)
            found = {key: own for key, own in found.items() if left[key] in times}
            if not found:
                return set()
            now = min(times.values())
            done = self._store.delete_many(table, form, found, int(now), until)
            left = {key: left[key] for key, is_done in zip(found, done) if not is_done}
        return {*left.values()}
