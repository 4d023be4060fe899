"""The database: rows in and out, changes in transactions, and the generation of each table.

It knows the declared tables and SQL. It knows nothing of requests, files or Redis. What other
packages may use:

Database, Transaction          read rows, run a transaction; run the statements of your own tables
Change, Committed, Generation  what a transaction changed, its COMMIT, the generation it held
applied_deltas                 how much of what is counted in Redis is in each row
change_capture                 triggers and records of what other clients change
Statement, guarded, MICROSECONDS_NOW
                               SQL with its parameters; a value, or an error; the time, UTC
giving_keys, check_distance, highest_allowed, no_key_left
                               the keys that the database gives to new rows
DatabaseError, is_forbidden, is_value_rejected, rejection, is_foreseen
                               why a statement failed
"""

from chalicelib.db import applied_deltas, change_capture
from chalicelib.db.auto_increment import check_distance, giving_keys, highest_allowed, no_key_left
from chalicelib.db.cache_generation import Generation
from chalicelib.db.database import Database
from chalicelib.db.errors import (
    DatabaseError,
    is_forbidden,
    is_foreseen,
    is_value_rejected,
    rejection,
)
from chalicelib.db.statements import MICROSECONDS_NOW, Statement, guarded
from chalicelib.db.transaction import Change, Committed, Transaction

__all__ = [
    "MICROSECONDS_NOW",
    "Change",
    "Committed",
    "Database",
    "DatabaseError",
    "Generation",
    "Statement",
    "Transaction",
    "applied_deltas",
    "change_capture",
    "check_distance",
    "giving_keys",
    "guarded",
    "highest_allowed",
    "is_forbidden",
    "is_foreseen",
    "is_value_rejected",
    "no_key_left",
    "rejection",
]
