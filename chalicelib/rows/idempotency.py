"""Idempotency keys: a request that comes again with its key is done once and gets the same answer.

The transaction of the change also claims the key and records the answer, in the table
`idempotency`.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chalicelib.db import Change, Database, Statement, Transaction, guarded
from chalicelib.errors import AlreadyClaimed, Conflict, DatabaseUnavailable
from chalicelib.tables import Key, Table

# What JSON can hold: the keys of rows, for example.
Answer = Sequence[Any]

_IS_NEW = guarded("1", "answer = ''")
# A guard: an error where an earlier transaction has claimed the key.
GUARD_CLAIM = f"SELECT {_IS_NEW} FROM idempotency WHERE idempotency_key = %s"
# A row of an answer of the RDS Data API has at most 64 KB. What is recorded is ASCII.
PIECE_CHARACTERS = 32_000
# Of one statement that records an answer. A request to the RDS Data API has at most 4 MB.
RECORDED_AT_ONCE = 500_000
PRUNE_CLAIMS: Statement = (
    "DELETE FROM idempotency WHERE claimed_at < UTC_TIMESTAMP() - INTERVAL 1 DAY LIMIT 1000",
    (),
)


@dataclass(frozen=True)
class Recorded:
    """What the first request recorded. `answer`: what it answered with. `entries`: by column, the
    values of all entries that show or showed a row that it changed."""

    answer: Answer
    entries: Mapping[str, Sequence[Key]]


class IdempotentChange:
    """A `work.Claim` for one request. `request`: what it asks for; another one with the
    same key is a Conflict. `answer` tells what to answer."""

    def __init__(
        self,
        idempotency_key: str,
        table: Table,
        request: tuple[str, Sequence[Any]],
        answer: Callable[[Change], Answer],
    ) -> None:
        self._fingerprint = hashlib.sha256(repr((table.name, request)).encode()).hexdigest()
        self._key = idempotency_key
        self._table = table
        self._answer = answer

    def begin(self, transaction: Transaction) -> None:
        """Claim the key with the next statements. They wait for a transaction that is claiming it,
        and raise AlreadyClaimed where an earlier one has claimed it."""
        transaction.queue(self._claim())
        transaction.queue_guard((GUARD_CLAIM, (self._key,)), AlreadyClaimed)

    def record(
        self, transaction: Transaction, change: Change, entries: Mapping[str, Sequence[Key]]
    ) -> None:
        """Record the answer for retries; sent with the next statements."""
        keys = dict.fromkeys(row[0] for row in (*change.before, *change.after))
        entries = {**entries, self._table.key.name: list(keys)}
        text = json.dumps([self._answer(change), entries])
        for start in range(0, len(text), RECORDED_AT_ONCE):
            piece = text[start : start + RECORDED_AT_ONCE]
            transaction.queue(
                (
                    "UPDATE idempotency SET answer = CONCAT(answer, %s) WHERE idempotency_key = %s",
                    (piece, self._key),
                )
            )

    def recorded(self, transaction: Transaction) -> Recorded:
        """What the first request with this key recorded. Raises Conflict where that one asked for
        something else; DatabaseUnavailable where its record was deleted a moment ago."""
        *_, found = transaction.run(
            self._claim(), self._select(f"fingerprint, LENGTH(answer), {_part(1)}")
        )
        [(first_fingerprint, length, answer)] = found
        if first_fingerprint != self._fingerprint:
            raise Conflict(
                "Idempotency-Key: it came with another request before; use a new key for a new"
                " request"
            )
        if not answer:
            raise DatabaseUnavailable("Idempotency-Key: it was forgotten a moment ago; try again")
        starts = range(1 + PIECE_CHARACTERS, length + 1, PIECE_CHARACTERS)
        if starts:
            others = transaction.run(*[self._select(_part(start)) for start in starts])
            answer += "".join(part for [(part,)] in others)
        return Recorded(*json.loads(answer))

    def _select(self, what: str) -> Statement:
        return f"SELECT {what} FROM idempotency WHERE idempotency_key = %s", (self._key,)

    def _claim(self) -> Statement:
        """Insert the key. Where it exists, this waits for the transaction that inserted it, and
        adds nothing."""
        return (
            "INSERT INTO idempotency (idempotency_key, fingerprint, answer, claimed_at) VALUES"
            " (%s, %s, '', UTC_TIMESTAMP()) ON DUPLICATE KEY UPDATE fingerprint = fingerprint",
            (self._key, self._fingerprint),
        )


def _part(start: int) -> str:
    return f"SUBSTRING(answer, {start:d}, {PIECE_CHARACTERS:d})"


def prune_claims(database: Database) -> None:
    """Delete some of the idempotency keys that are older than a day."""
    database.run(PRUNE_CLAIMS)
