"""The use cases on rows. What other packages may use:

RowService     read, write, delete, invalidate
Rows, Page     the result of a read; which part of the rows of one value to read
WriteThrough   changes the database and the cache, as a `Work` says; ingest and sync use it too
LazyLoading    reads from the cache, and reads from the database what the cache lacks
RowLoader      reads from the database
WriteBehind    increments that are kept in Redis until the sync adds them to the row
read_totals, with_pending  what was added to such counters, and a row with it
"""

from chalicelib.rows.lazy_loading import LazyLoading
from chalicelib.rows.loader import Page, RowLoader
from chalicelib.rows.pending_increments import read_totals, with_pending
from chalicelib.rows.service import Rows, RowService
from chalicelib.rows.work import Work
from chalicelib.rows.write_behind import WriteBehind
from chalicelib.rows.write_through import WriteThrough

__all__ = [
    "LazyLoading",
    "Page",
    "RowLoader",
    "RowService",
    "Rows",
    "Work",
    "WriteBehind",
    "WriteThrough",
    "read_totals",
    "with_pending",
]
