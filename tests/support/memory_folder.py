"""A folder in memory for the files of a test run. On a disk, a test waits for its servers longer
than they work: each commit and each emptied table is written through to the disk."""

import os
import shutil
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
# What the servers of four workers take at most, and as much again.
NEEDED_BYTES = 4 << 30


def memory_folder(folder: Path = SHARED_MEMORY, needed_bytes: int = NEEDED_BYTES) -> Path | None:
    """The folder, if it is in memory, has enough room and its programs can be run. Otherwise None:
    a container often has 64 MB there."""
    try:
        is_usable = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free >= needed_bytes
        if is_usable and not os.statvfs(folder).f_flag & os.ST_NOEXEC:
            return folder
    except OSError:
        pass
    return None
