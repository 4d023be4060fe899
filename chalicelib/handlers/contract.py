"""The contract with clients: the fields of a request, their limits, and what a checked request is.

`validation` makes such a request of what a client sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from chalicelib.counts import Counts
from chalicelib.rows import Page
from chalicelib.tables import Column, Key, Row, Table

# The fields of a request, and the kinds of requests.
REQUEST, SQLS, USE_CACHE, TABLE, BY = "REQUEST", "SQLS", "USE_CACHE", "TABLE", "BY"
LIMIT, AFTER, FRESH = "LIMIT", "AFTER", "FRESH"
IDEMPOTENCY_KEY = "IDEMPOTENCY_KEY"
DIRECTION, FORM = "DIRECTION", "FORM"
FIELDS = (
    *(REQUEST, SQLS, USE_CACHE, TABLE, BY, LIMIT, AFTER, FRESH),
    *(IDEMPOTENCY_KEY, DIRECTION, FORM),
)
READ, WRITE, DELETE = "read", "write", "delete"
INCREMENT, INVALIDATE = "increment", "invalidate"
WATCH, UNWATCH, WATCHED = "watch", "unwatch", "watched"
REQUESTS = (READ, WRITE, DELETE, INCREMENT, INVALIDATE, WATCH, UNWATCH, WATCHED)
# These change no row: they may be sent again without an idempotency key.
REPEATABLE = (READ, INVALIDATE, WATCH, UNWATCH, WATCHED)
# SQLS of an invalidate request for the whole table, and of a watch on it.
EVERY_ROW = ["*"]

# In lower case, as Chalice looks it up.
IDEMPOTENCY_HEADER = "idempotency-key"

MAX_READ_VALUES = 10_000
MAX_LIMIT = 10_000
MAX_WRITE_ROWS = 1_000


@dataclass(frozen=True)
class Read:
    """`page`: which part of the rows to read, if not all. Then `values` has one value. `is_fresh`:
    changes by other clients of the database must be seen."""

    table: Table
    column: Column
    values: Sequence[Key]
    use_cache: bool
    page: Page | None = None
    is_fresh: bool = False


@dataclass(frozen=True)
class Write:
    """`rows`: in the order of SQLS. A row that came without its key has NO_KEY."""

    table: Table
    rows: Sequence[Row]
    use_cache: bool
    idempotency_key: str


@dataclass(frozen=True)
class Delete:
    table: Table
    keys: Sequence[Key]
    idempotency_key: str


@dataclass(frozen=True)
class Invalidate:
    """`keys`: the rows that somebody else changed; None where any row may have changed."""

    table: Table
    keys: Sequence[Key] | None


@dataclass(frozen=True)
class Increment:
    """`deltas`: in the order of SQLS. No row is named twice."""

    table: Table
    deltas: Counts
    use_cache: bool
    idempotency_key: str


@dataclass(frozen=True)
class Watch:
    """`keys`: None for every row. `form`: of the public keys."""

    table: Table
    keys: Sequence[Key] | None
    form: str
    direction: str


@dataclass(frozen=True)
class Unwatch:
    """As `Watch`. `direction`: None for any."""

    table: Table
    keys: Sequence[Key] | None
    form: str
    direction: str | None


@dataclass(frozen=True)
class Watched:
    """Asks which rows are watched."""

    table: Table


Request = Read | Write | Delete | Invalidate | Increment | Watch | Unwatch | Watched
