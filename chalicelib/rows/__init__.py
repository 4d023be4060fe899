"""The use cases on rows. What other packages may use:

RowService     read, write, delete, invalidate
Rows, Page     what a read found; which part of the rows of one value to read
WriteThrough   a change, in the database and in the cache, as a `Work`; the ingest needs it too
LazyLoading    reads from the cache, and from the database what the cache lacks
RowLoader      reads from the database
"""

from chalicelib.rows.lazy_loading import LazyLoading
from chalicelib.rows.loader import Page, RowLoader
from chalicelib.rows.service import Rows, RowService
from chalicelib.rows.write_through import Work, WriteThrough

__all__ = ["LazyLoading", "Page", "RowLoader", "RowService", "Rows", "Work", "WriteThrough"]
