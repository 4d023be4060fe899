"""Rows and their public keys in step: watched rows, and the run that looks at them. What other
packages may use:

Sync           the run
Watches        which rows are watched
WatchedRow     one of them
"""

from chalicelib.sync.service import Sync
from chalicelib.sync.watches import WatchedRow, Watches

__all__ = ["Sync", "WatchedRow", "Watches"]
