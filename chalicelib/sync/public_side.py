"""The public keys of a step: what they should hold, setting them, and until when that may be."""

from collections.abc import Mapping, Sequence

from chalicelib.cache import Found, PublicRow, PublicStore, public_forms
from chalicelib.sync.runs import RANGE_SECONDS, Lease, Record, nobody
from chalicelib.sync.step import Step
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
        self._lease.renew()
        return until

    def check(self, step: Step) -> None:
        """Just before public keys are set. Raises Turned."""
        self._lease.check(step.turns)

    def shown(self, step: Step) -> Mapping[Key, Found]:
        """What the public keys of the rows should hold. Rows that JSON cannot show are reported."""
        found, rows = step.now.found, step.rows
        for key in found.keys() & rows.odd.keys():
            try:
                step.table.encode(rows.odd[key])
            except NotAsDeclared as error:
                self._record.report(step.direction, step.public_key(key), str(error))
        texts = rows.texts
        if len(texts) > len(found):
            texts = {key: texts[key] for key in found if key in texts}
        if step.form == JSON:
            return texts
        return dict(zip(texts, public_forms(step.table, step.form, [*texts.values()])))

    def with_values(self, step: Step, puts: Sequence[PublicRow]) -> Sequence[PublicRow]:
        """The same, each with the value of its row."""
        unknown = [put for put in puts if put.row is not None and put.value is None]
        if not unknown:
            return puts
        texts = step.table.encode_many([put.row for put in unknown if put.row is not None])
        values = dict(zip([put.key for put in unknown], public_forms(step.table, step.form, texts)))
        return [put._replace(value=values.get(put.key, put.value)) for put in puts]

    def put_new(self, step: Step) -> None:
        """Set the public keys of all rows as JSON, as long as nothing is there. Some may be left
        out."""
        texts = step.rows.texts
        done = self._store.set_new_many(step.table, texts, step.rows.until)
        held = texts if len(done) == len(texts) else {key: texts[key] for key in done}
        self._hold(step, held)

    def put(self, step: Step, puts: Sequence[PublicRow]) -> set[Key]:
        """Set public keys to these values. The keys of the rows where something else was there."""
        if not puts:
            return set()
        rows, now = step.rows, step.now
        done = self._store.set_many(step.table, step.form, puts, rows.read_at, rows.until)
        not_set = {put.key for put, is_done in zip(puts, done) if not is_done}
        now.is_known = now.is_known and not not_set
        self._hold(step, {put.key: put.value for put in puts if put.key not in not_set})
        return not_set

    def _hold(self, step: Step, held: Mapping[Key, Found]) -> None:
        """These public keys were set."""
        now = step.now
        now.found |= held
        changed = [key for key in held if key not in now.written] if now.written else held
        self._record.tallies[step.direction].changed += len(changed)
        self.tell(step, [*changed], "from Database to Redis")

    def tell(self, step: Step, keys: Sequence[Key], way: str) -> None:
        if self._record.tell is not nobody:
            for name in step.table.public_keys(step.form, keys):
                self._record.tell(f"Write {name} {way}")
