"""Changes that other clients make, in the database or under public keys, and how they reach the
other side. What other packages may use:

CapturedChanges   changes that other clients of the database made, brought to the cache
Sync, Record      the run that brings watched rows and their public keys in step, and what it did
RangeWorker       works off a range that a run has handed out
ranges_in         the ranges in an event of S3
WatchChanges      watches begin and end
Watches           which rows are watched
WatchedRow        one of them
"""

from chalicelib.sync.captured_changes import CapturedChanges
from chalicelib.sync.fan_out import ranges_in
from chalicelib.sync.range_worker import RangeWorker
from chalicelib.sync.runs import Record
from chalicelib.sync.service import Sync
from chalicelib.sync.watch_changes import WatchChanges
from chalicelib.sync.watches import WatchedRow, Watches

__all__ = [
    "CapturedChanges",
    "RangeWorker",
    "Record",
    "Sync",
    "WatchChanges",
    "WatchedRow",
    "Watches",
    "ranges_in",
]
