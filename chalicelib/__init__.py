"""herocache: rows of a relational database over one endpoint, made fast by a Redis cache."""

__version__ = "0.1.0"
