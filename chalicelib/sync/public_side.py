"""The public keys of a range: what they should hold, setting them, and until when that may be."""

from collections.abc import Mapping, Sequence

from chalicelib.cache import Found, PublicRow, PublicStore, public_forms
from chalicelib.sync.range_rows import InStep, Rows
from chalicelib.sync.runs import RANGE_SECONDS, Lease, Record, nobody
from chalicelib.tables import JSON, Key, NotAsDeclared, Table


class PublicSide:
    """For one run."""

    def __init__(self, store: PublicStore, lease: Lease, record: Record) -> None:
        self._store = store
        self._lease = lease
        self._record = record

    def read_many(self, table: Table, form: str, keys: Sequence[Key]) -> dict[Key, Found]:
        """What stands under the public keys of these rows. Raises CacheUnavailable."""
        return dict(zip(keys, self._store.read_many(table, form, keys)))

    def deadline(self) -> int:
        """Until when public keys may be set. The lease is held until then: where it may be short
        it is renewed, after the deadline was asked for. Raises Superseded."""
        until = self._store.deadline(RANGE_SECONDS)
        if self._lease.is_due:
            self._lease.run()
        return until

    def shown(
        self, table: Table, form: str, direction: str, rows: Rows, now: InStep
    ) -> Mapping[Key, Found]:
        """What the public keys of the rows hold. Rows that JSON cannot show are reported."""
        for key in now.found.keys() & rows.odd.keys():
            try:
                table.encode(rows.odd[key])
            except NotAsDeclared as error:
                self._record.report(direction, table.public_key(form, key), str(error))
        texts = rows.texts
        if len(texts) > len(now.found):
            texts = {key: texts[key] for key in now.found if key in texts}
        return (
            texts
            if form == JSON
            else dict(zip(texts, public_forms(table, form, [*texts.values()])))
        )

    def with_values(
        self, table: Table, form: str, puts: Sequence[PublicRow]
    ) -> Sequence[PublicRow]:
        """The same, each with the value of its row."""
        unknown = [put for put in puts if put.row is not None and put.value is None]
        if not unknown:
            return puts
        texts = table.encode_many([put.row for put in unknown if put.row is not None])
        values = dict(zip([put.key for put in unknown], public_forms(table, form, texts)))
        return [put._replace(value=values.get(put.key, put.value)) for put in puts]

    def put_new(self, table: Table, direction: str, rows: Rows, now: InStep) -> None:
        """Set the public keys of all rows as JSON, as long as nothing is there. Some may be left
        out."""
        done = self._store.set_new_many(table, rows.texts, rows.until)
        is_whole = len(done) == len(rows.texts)
        held = rows.texts if is_whole else {key: rows.texts[key] for key in done}
        self._hold(table, JSON, direction, held, now)

    def put(
        self,
        table: Table,
        form: str,
        direction: str,
        rows: Rows,
        puts: Sequence[PublicRow],
        now: InStep,
    ) -> set[Key]:
        """Set public keys to these values. The keys of the rows where something else was there."""
        if not puts:
            return set()
        done = self._store.set_many(table, form, puts, rows.read_at, rows.until)
        not_set = {put.key for put, is_done in zip(puts, done) if not is_done}
        now.is_known = now.is_known and not not_set
        held = {put.key: put.value for put in puts if put.key not in not_set}
        self._hold(table, form, direction, held, now)
        return not_set

    def _hold(
        self, table: Table, form: str, direction: str, held: Mapping[Key, Found], now: InStep
    ) -> None:
        """These public keys were set."""
        now.found |= held
        changed = [key for key in held if key not in now.written] if now.written else held
        self._record.tallies[direction].changed += len(changed)
        self.tell(table, form, [*changed], "from Database to Redis")

    def tell(self, table: Table, form: str, keys: Sequence[Key], way: str) -> None:
        if self._record.tell is not nobody:
            for name in table.public_keys(form, keys):
                self._record.tell(f"Write {name} {way}")
