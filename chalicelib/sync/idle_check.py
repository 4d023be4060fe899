"""Notes in Redis that tell whether a table may need a run: one that has nothing to do asks the
database nothing.

A run leaves a note when it has brought a table in step. Whoever changes rows of the table deletes
it, and so does whatever loses it. The note lives for a day: the next run then looks, whatever was
missed. Other clients change public keys: the note says what stood under them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence

from chalicelib.cache import Found, PublicStore, fingerprint
from chalicelib.tables import Key, Table


class Notes:
    def __init__(self, store: PublicStore) -> None:
        self._store = store

    def is_in_step(self, table: Table, server: str) -> bool:
        """Whether nothing has changed since the last run, as far as Redis knows. Raises
        CacheUnavailable."""
        reached, text = self._store.note(table)
        try:
            note = json.loads(text)
            if (note["server"], server) != (reached, reached):
                return False
        except (ValueError, TypeError, KeyError):
            return False  # a run is under way, or of another release
        for name in note["ranges"]:
            [kept] = self._store.texts(table, [name])
            if not kept:
                return False
            form, keys, stood = json.loads(kept)
            if _stand(self._store.read_many(table, form, keys)) != stood:
                return False
        return True

    def begin(self, table: Table, run: int) -> "Note":
        """Raises CacheUnavailable."""
        note = Note(self._store, table, run)
        self._store.begin_note(table, note.begun)
        return note


class Note:
    """What a run writes down of one table while it looks at it. `number`: of a range that the run
    has handed out; the ranges of a run write parts of one note. `names`: under which the parts
    stand that were written so far; None where somebody has changed what stood there."""

    def __init__(
        self,
        store: PublicStore,
        table: Table,
        run: int,
        number: int = 0,
        names: Sequence[str] | None = (),
    ) -> None:
        self.begun = f"run {run}"
        self.names = None if names is None else [*names]
        self._store = store
        self._table = table
        self._prefix = f"{run}:{number}"

    def add(self, form: str, found: dict[Key, Found], is_known: bool) -> None:
        """What stands under public keys, which other clients may change."""
        if not is_known:
            self.names = None
        if self.names is not None:
            name = f"{self._prefix}:{len(self.names)}"
            text = json.dumps([form, [*found], _stand(found.values())])
            self._store.keep(self._table, name, text)
            self.names.append(name)

    def finish(self, server: str) -> None:
        """The table is in step, unless somebody has changed it meanwhile."""
        if self.names is not None:
            text = json.dumps({"server": server, "ranges": self.names})
            self._store.finish_note(self._table, self.begun, text)


def _stand(found: Iterable[Found] | Sequence[Found]) -> str:
    texts = "\n".join(map(fingerprint, found))
    return hashlib.sha1(texts.encode(), usedforsecurity=False).hexdigest()
