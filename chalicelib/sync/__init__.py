"""Database and cache in step. What other packages may use:

Captured   changes that other clients of the database made, brought to the cache
"""

from chalicelib.sync.captured import Captured

__all__ = ["Captured"]
