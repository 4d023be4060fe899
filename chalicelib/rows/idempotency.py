"""Idempotency keys: a request that comes again with its key is done once and answered alike.

The key is claimed and the answer recorded in the transaction of the change itself. `storage` makes
the claims, `write_through` plays them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from chalicelib.db.database import Change, Transaction
from chalicelib.tables import Key, Row, Table


@dataclass(frozen=True)
class Recorded:
    """Of the first request: the keys it was answered with; by column, the values of all entries
    that show or showed a row it changed."""

    answer: Sequence[Key]
    entries: Mapping[str, Sequence[Key]]


class IdempotentChange:
    """A `write_through.Claim` for one request: it writes `rows`, or deletes the rows with `keys`.
    `answer` tells what to answer."""

    def __init__(
        self,
        idempotency_key: str,
        table: Table,
        rows: Sequence[Row],
        keys: Sequence[Key],
        answer: Callable[[Change], Sequence[Key]],
    ) -> None:
        request = ("write", rows) if rows else ("delete", keys)
        self._fingerprint = hashlib.sha256(repr((table.name, request)).encode()).hexdigest()
        self._key = idempotency_key
        self._table = table
        self._answer = answer

    def begin(self, transaction: Transaction) -> None:
        transaction.claim(self._key, self._fingerprint)

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        answer = self._answer(change)
        entries = {**entries, self._table.key.name: answer}
        transaction.record(self._key, json.dumps([answer, entries]))

    def recorded(self, transaction: Transaction) -> Recorded:
        """By the first request with this key. Raises Conflict."""
        return Recorded(*json.loads(transaction.claimed(self._key, self._fingerprint)))
