"""Rows and their public keys in step: watched rows, and the run that looks at them. What other
packages may use:

Sync, Record   the run, and what it did
Watches        which rows are watched
WatchedRow     one of them
"""

from chalicelib.sync.runs import Record
from chalicelib.sync.service import Sync
from chalicelib.sync.watches import WatchedRow, Watches

__all__ = ["Record", "Sync", "WatchedRow", "Watches"]
