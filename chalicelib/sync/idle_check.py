"""The idle check: notes in Redis tell whether a table may need a run. A run without work asks the
database nothing.

A run leaves a note when it has brought a table in step. Every change of rows of the table deletes
it. Without a note the next run looks at the table. The note lives for a day, so then a run looks,
whatever was missed. Other clients may change public keys: the note holds digests of what stood
under them.
"""

import hashlib
import json
from collections.abc import Collection, Sequence

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
    """The note of one table while a run works on it. `writer`: who works on a range that was handed
    out; each writes parts of the note, and none in the place of another's. `names`: the names of
    the parts written so far; None where a public key may have changed meanwhile, so that no note
    can be left."""

    def __init__(
        self,
        store: PublicStore,
        table: Table,
        run: int,
        writer: str = "",
        names: Sequence[str] | None = (),
    ) -> None:
        self.begun = f"run {run}"
        self.names = None if names is None else [*names]
        self._store = store
        self._table = table
        self._prefix = f"{run}:{writer}"

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


def _stand(found: Collection[Found]) -> str:
    """A digest of it all: of what is a text its length and the text itself."""
    if set(map(type, found)) == {bytes}:
        texts: Collection[bytes] = found  # type: ignore[assignment]
        kinds = [*map(len, texts)]
    else:
        texts = [each if type(each) is bytes else fingerprint(each).encode() for each in found]
        kinds = [len(each) if type(each) is bytes else -1 for each in found]
    digest = hashlib.sha1(json.dumps(kinds).encode(), usedforsecurity=False)
    digest.update(b"\n".join(texts))
    return digest.hexdigest()
