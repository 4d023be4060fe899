"""Public keys as a run of the sync uses them, and the notes that tell whether there is work."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chalicelib.cache import keys, public_scripts
from chalicelib.cache.commands import LACKS_A_RIGHT, Command, NoClient, Words, sha1
from chalicelib.cache.configured_client import new_client
from chalicelib.cache.public_keys import (
    Found,
    Garbage,
    HashFields,
    Late,
    PublicRow,
    delete_note,
    instead_of,
    note,
    read_commands,
    set_commands,
    set_new_commands,
    stamp_commands,
)
from chalicelib.cache.write_behind_totals import CounterTotalsStore
from chalicelib.config import Settings
from chalicelib.errors import CacheUnavailable
from chalicelib.tables import Key, Table, tables_with

if TYPE_CHECKING:
    from chalicelib.cache.client import Client

NOTE_MILLISECONDS = 24 * 3600 * 1000
# A run waits longer than a request: it reads and sets thousands of keys in a call.
TIMEOUT_SECONDS = 2.0
# In one transaction: nobody else is served meanwhile.
MAX_NEW_ROWS = 1_000


def public_store(settings: Settings) -> "PublicStore":
    """With a client of its own: what fails here is no failure of the cache."""
    tables = tables_with(settings.default_table)
    return PublicStore(new_client(settings, tables, TIMEOUT_SECONDS))


class PublicStore:
    """Public keys as a run uses them, the notes of tables, and `counter_totals`. Each method raises
    CacheUnavailable."""

    def __init__(self, client: "Client | NoClient") -> None:
        self._client = client
        self.counter_totals = CounterTotalsStore(client, keys.Keys(client.is_cluster))

    @property
    def is_configured(self) -> bool:
        return not isinstance(self._client, NoClient)

    def wake(self) -> str:
        """The name of the server that answers now, also where it failed before."""
        if self._client.is_down:
            self._client.probe()
            self._client.resume()
        server, _ = self._client.ask_many([Command("sync", ("TIME",))])
        return server

    def deadline(self, seconds: float) -> int:
        """So many seconds from now on, in microseconds of the server's clock."""
        _, [(now, microseconds)] = self._client.ask_many([Command("sync", ("TIME",))])
        return int(now) * 1_000_000 + int(microseconds) + round(seconds * 1_000_000)

    def read_many(self, table: Table, form: str, row_keys: Sequence[Key]) -> list[Found]:
        """What the public key of each row holds. No row's JSON is longer than what is read."""
        commands = read_commands(table, form, row_keys, self._client.is_cluster)
        _, replies = self._client.ask_many(commands) if commands else ("", ())
        return [
            each if each is None or type(each) is bytes else _found(each)
            for command, reply in zip(commands, replies)
            for each in reply or [None] * int(command.words[2])
        ]

    def set_many(
        self, table: Table, form: str, rows: Sequence[PublicRow], read_at: int, until: int
    ) -> list[bool]:
        """Set public keys, where no write has put a later row there. Whether each was set. Raises
        Late where `until` has come."""
        is_cluster = self._client.is_cluster
        replies = self._set(set_commands(table, form, rows, read_at, is_cluster, until=until))
        return [bool(each) for reply in replies for each in reply]

    def set_new_many(self, table: Table, texts: Mapping[Key, bytes], until: int) -> list[Key]:
        """Set public keys as JSON, where nothing is under them, nor was lately. Some may be left
        out, in a cluster all. The keys of the rows that were set. Raises Late as `set_many`."""
        items = [*texts.items()] if not self._client.is_cluster else []
        batches = [dict(items[n : n + MAX_NEW_ROWS]) for n in range(0, len(items), MAX_NEW_ROWS)]
        commands = [c for batch in batches for c in set_new_commands(table, batch, until)]
        _, replies = self._client.ask_many(commands) if commands else ("", ())
        done: list[Key] = []
        for batch, (_, allowed, is_set, _) in zip(batches, replies[5::6]):
            if allowed == b"late":
                raise Late
            if "executing the script can't" in str(allowed):
                raise CacheUnavailable(LACKS_A_RIGHT)
            done += batch if is_set else ()
        return done

    def _set(self, commands: Sequence[Command]) -> Sequence[Any]:
        _, replies = self._client.ask_many(commands) if commands else ("", ())
        if b"late" in replies:
            raise Late
        return replies

    def delete_many(
        self, table: Table, form: str, found: Mapping[Key, Found], read_at: int, until: int
    ) -> list[bool]:
        """Delete public keys that nobody watches any more since `read_at`, where they hold what was
        `found`. A write that read its row before that does not bring them back. Whether each was
        deleted. Raises Late where `until` has come."""
        rows = [PublicRow(key, None, instead_of(own)) for key, own in found.items()]
        is_cluster = self._client.is_cluster
        replies = self._set(set_commands(table, form, rows, read_at, is_cluster, read_at, until))
        return [bool(each) for reply in replies for each in reply]

    def stamp_many(self, table: Table, form: str, row_keys: Sequence[Key], now: int) -> None:
        """From now on a run sets none of these public keys to a row that it has read before `now`,
        in microseconds of the database's clock."""
        commands = stamp_commands(table, form, row_keys, now, self._client.is_cluster)
        if commands:
            self._client.ask_many(commands)

    def note(self, table: Table) -> tuple[str, bytes]:
        """The server that answers now, and the table's note; empty where there is none."""
        server, found = self._client.ask(Command(keys.tag(table, 0), ("GET", note(table))))
        return server, found or b""

    def texts(self, table: Table, names: Sequence[str]) -> list[bytes]:
        """What `keep` has put there; empty where it is gone."""
        tag = keys.tag(table, 0)
        commands = [Command(tag, ("GET", f"{note(table)}:{name}")) for name in names]
        _, replies = self._client.ask_many(commands) if commands else ("", ())
        return [reply or b"" for reply in replies]

    def keep(self, table: Table, name: str, text: str | bytes) -> None:
        words: Words = ("SET", f"{note(table)}:{name}", text, "PX", NOTE_MILLISECONDS)
        self._client.ask(Command(keys.tag(table, 0), words))

    def begin_note(self, table: Table, text: str) -> None:
        words: Words = ("SET", note(table), text, "PX", NOTE_MILLISECONDS)
        self._client.ask(Command(keys.tag(table, 0), words))

    def finish_note(self, table: Table, begun: str, text: str) -> None:
        """Put `text` in the place of the note, where it still is what `begin_note` made it."""
        words: Words = ("EVALSHA", sha1(public_scripts.FINISH_NOTE), 1, note(table))
        words += (begun, text, NOTE_MILLISECONDS)
        self._client.ask(Command(keys.tag(table, 0), words))

    def delete_note(self, table: Table) -> None:
        self._client.ask(delete_note(table))


def _found(reply: Any) -> Found:
    if reply is None or isinstance(reply, bytes):
        return reply
    kind, *rest = reply
    if kind == b"hash":
        count, *values = rest
        return HashFields(count, tuple(values))
    if kind == b"type":
        return Garbage(f"it holds a {rest[0].decode()}")
    return Garbage(f"it holds {rest[0]} bytes, more than a row can have")
