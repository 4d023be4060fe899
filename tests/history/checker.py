"""Compares what clients saw with what was committed.

No read that began after a change was acknowledged may show older rows. The ledger has an
acknowledged change once, and a rejected one never. At the end, table and ledger must agree. `rows`
has the reasoning for one row.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.history.ledger import Note
from tests.history.records import (
    ACKNOWLEDGED,
    REFUSED,
    Failed,
    Intent,
    Outcome,
    Seen,
    Wrong,
    recorded,
)
from tests.history.rows import ALWAYS, NEVER, Ghost, RowHistory, Version
from tests.history.verdict import Verdict

# Rows that must be visible are grouped in slots of a tenth of a second (in nanoseconds).
_SLOT = 100_000_000


class Changes:
    """All changes that were sent, and how each ended."""

    def __init__(self, folder: Path) -> None:
        self.intents: dict[str, Intent] = {}
        self.outcomes: dict[str, Outcome] = {}
        self._deletes: defaultdict[int, list[str]] = defaultdict(list)
        for record in recorded(folder):
            if isinstance(record, Intent) and not record.amounts:
                self.intents[record.operation] = record
                for id in record.deletes:
                    self._deletes[id].append(record.operation)
            elif isinstance(record, Outcome):
                self.outcomes[record.operation] = record

    def operation_of(self, note: Note) -> str | None:
        """Who made this version. Where a row was deleted without an idempotency key there was one
        delete for it only."""
        if note.token is not None:
            return note.token.rpartition(".")[0]
        candidates = self._deletes[note.id]
        return candidates[0] if len(candidates) == 1 else note.operation

    def version_of(self, note: Note) -> Version:
        operation = self.operation_of(note) or ""
        intent, outcome = self.intents.get(operation), self.outcomes.get(operation)
        is_told = outcome is not None and outcome.outcome == ACKNOWLEDGED
        return Version(
            note.token,
            note.xp,
            intent.start if intent else ALWAYS,
            outcome.end if outcome and is_told else NEVER,
        )

    def ghosts(self, ledger: Sequence[Note], crashes: Sequence[int]) -> dict[int, list[Ghost]]:
        """By row id, 0 for rows whose id nobody was told: what was under way when the database
        crashed and is not in the ledger."""
        ghosts: defaultdict[int, list[Ghost]] = defaultdict(list)
        kept = {self.operation_of(note) for note in ledger}
        for operation, intent in self.intents.items():
            outcome = self.outcomes.get(operation)
            if operation in kept or (outcome is not None and outcome.outcome == ACKNOWLEDGED):
                continue
            until = max((crash for crash in crashes if crash > intent.start), default=ALWAYS)
            for id, xp, token in intent.rows:
                ghosts[id].append(Ghost(token, xp, intent.start, until))
            for id in intent.deletes:
                ghosts[id].append(Ghost(None, None, intent.start, until))
        return ghosts


def check(
    folder: Path,
    ledger: Sequence[Note],
    table: dict[int, tuple[int, str]],
    crashes: Sequence[int] = (),
) -> Verdict:
    """`folder` has the records, `table` the heroes once all was quiet: (xp, token) by id;
    `crashes` are the times at which the database was killed."""
    verdict = Verdict()
    changes = Changes(folder)
    _check_changes(changes, ledger, verdict)
    _check_table(ledger, table, verdict)
    versions: defaultdict[int, list[Version]] = defaultdict(list)
    for note in ledger:
        versions[note.id].append(changes.version_of(note))
    ghosts = changes.ghosts(ledger, crashes)
    rows = {id: RowHistory(versions[id], ghosts.get(id, ())) for id in {*versions, *ghosts, 0}}
    _check_absent(changes, rows, verdict)
    _Reads(rows, verdict).check(folder)
    return verdict


def _check_changes(changes: Changes, ledger: Sequence[Note], verdict: Verdict) -> None:
    """Lost, doubled, torn, or done although the client was told that nothing was."""
    done: defaultdict[str, Counter[tuple[int, str]]] = defaultdict(Counter)
    for note in ledger:
        done[changes.operation_of(note) or ""][note.id, note.token or ""] += 1
    for operation, intent in changes.intents.items():
        found = done[operation]
        outcome = changes.outcomes.get(operation)
        what = "files" if "Records" in intent.request else "changes"
        verdict.checked[f"{what} {outcome.outcome if outcome else 'cut off'}"] += 1
        tokens = {token: id for id, _, token in intent.rows}
        if max(found.values(), default=0) > 1:
            verdict.violated("done twice", f"{operation}: {dict(found)}")
        if intent.rows and len(found) not in (0, len(tokens)):
            verdict.violated("torn write", f"{operation}: only {sorted(found)} of {tokens}")
        if outcome is None:
            continue
        if outcome.outcome == REFUSED and found:
            verdict.violated("done though refused", f"{operation}: {dict(found)}")
        if outcome.outcome == ACKNOWLEDGED:
            answered = zip(outcome.ids, tokens if tokens else [""] * len(outcome.ids))
            for row in answered:
                if row not in found:
                    verdict.violated("acknowledged change lost", f"{operation}: {row}")


def _check_table(
    ledger: Sequence[Note], table: dict[int, tuple[int, str]], verdict: Verdict
) -> None:
    last = {note.id: note for note in ledger}
    expected = {id: (n.xp, n.token) for id, n in last.items() if n.token is not None}
    for id in expected.keys() | table.keys():
        if expected.get(id) != table.get(id):
            what = f"hero {id} is {table.get(id)}, the last commit left {expected.get(id)}"
            verdict.violated("table differs from its commits", what)


def _check_absent(changes: Changes, rows: Mapping[int, RowHistory], verdict: Verdict) -> None:
    """A delete that found no row saw the table as a read does."""
    for operation, outcome in changes.outcomes.items():
        if outcome.outcome != ACKNOWLEDGED or operation not in changes.intents:
            continue
        intent = changes.intents[operation]
        for id in set(intent.deletes) - set(outcome.ids):
            if id in rows and not rows[id].may_be_absent(intent.start, outcome.end):
                verdict.violated("delete missed its row", f"{operation}: hero {id}")


class _Reads:
    def __init__(self, rows: dict[int, RowHistory], verdict: Verdict) -> None:
        self._rows = rows
        self._verdict = verdict
        self._id_of = {
            version.token: id
            for id, row in rows.items()
            for version in row.versions
            if version.token is not None
        }
        self._certain = _certain_rows(rows)

    def check(self, folder: Path) -> None:
        for record in recorded(folder):
            if isinstance(record, Seen):
                self._check_read(record)
            elif isinstance(record, Failed):
                self._verdict.checked[f"{record.request} not answered: {record.error}"] += 1
                if record.status not in (200, 503):
                    self._verdict.violated("request failed on a bug", str(record))
            elif isinstance(record, Wrong):
                self._verdict.violated("wrong answer", record.what)

    def _check_read(self, read: Seen) -> None:
        self._verdict.checked[f"reads by {read.by}"] += 1
        shown = {id for id, _, _ in read.rows}
        if len(set(map(tuple, read.rows))) < len(read.rows):
            self._verdict.violated("row shown twice", str(read))
        for id, xp, token in read.rows:
            self._check_row(read, id, xp, token)
        if read.by == "id":
            absent = [id for id in read.values if id not in shown and id in self._rows]
            for id in absent:
                if not self._rows[id].may_be_absent(read.start, read.end):
                    self._stale(read, id, "no such row")
            return
        for xp in read.values:
            for since, until, id in self._certain.get((xp, read.start // _SLOT), ()):
                if since < read.start and read.end < until and id not in shown:
                    ghosts = self._rows[id].ghosts(read.start, read.end)
                    if all(ghost.xp == xp for ghost in ghosts):
                        self._stale(read, id, f"no such row under xp {xp}")

    def _check_row(self, read: Seen, id: int, xp: int, token: str) -> None:
        # A row of no known version can only be one that the database showed and lost.
        known_id = self._id_of.get(token, id if id in self._rows else 0)
        if known_id not in (id, 0):
            self._verdict.violated("row under another id", f"hero {id}: {token} in {read}")
            return
        row = self._rows[known_id]
        fault = row.fault_of(token, xp, read.start, read.end)
        if fault and token not in self._id_of:
            fault = self._rows[0].fault_of(token, xp, read.start, read.end)
        if fault == "stale read":
            self._stale(read, id, token)
        elif fault:
            self._verdict.violated(fault, f"hero {id}: {token} in {read}")

    def _stale(self, read: Seen, id: int, shown: str) -> None:
        row = self._rows[id]
        known = row.versions[row.oldest_allowed(read.start)]
        late = (read.start - known.told) / 1e6
        how = "cached" if read.cached else "uncached"
        self._verdict.violated(
            f"stale read ({how})",
            f"by {read.by} at {read.start}: hero {id} shown as {shown}, but {known.token} (xp"
            f" {known.xp}) was acknowledged {late:.3f} ms before the read",
        )
        self._verdict.stale_at.append(read.start)


def _certain_rows(
    rows: dict[int, RowHistory],
) -> dict[tuple[int, int], list[tuple[int, int, int]]]:
    """What must be seen under an xp, by xp and slot of time: (from, until, id). A row that is
    certain until the end is in each slot up to the last event."""
    last = max((v.told for r in rows.values() for v in r.versions if v.told < NEVER), default=0)
    slots: defaultdict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for id, row in rows.items():
        for xp in {version.xp for version in row.versions if version.xp is not None}:
            for since, until in row.certain(xp):
                final = min(until, last + 60 * 10 * _SLOT) // _SLOT
                for slot in range(since // _SLOT, final + 1):
                    slots[xp, slot].append((since, until, id))
    return slots
