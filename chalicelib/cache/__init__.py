"""The cache in Redis, and the protocol that keeps it right. What other packages may use:

Cache             the verbs of the protocol on entries
Generations       which entries may be believed now, and when a write may be acknowledged
Recovery          takes Redis back into use after it failed
Entry, Affected, Fenced, Leases, Pending, Token, new_token   what the verbs take and return
LEASE, MARK       the first bytes of an entry without a value
PublicStore, public_store, PublicRow, PublicWrite, Found, HashFields, Garbage, Late,
public_forms, fingerprint, instead_of   the public keys of watched rows, which any client may use
CounterTotals, CounterTotalsStore, CounterRecord, declaration, EntryMissing, OutOfRange
                  what was added to write-behind counters, and is not in the row yet
"""

from chalicelib.cache.entries import Affected, Cache, Leases, Pending, new_token
from chalicelib.cache.entry_commands import Entry, Fenced, Token
from chalicelib.cache.entry_scripts import LEASE, MARK
from chalicelib.cache.generations import Generations
from chalicelib.cache.public_keys import (
    Found,
    Garbage,
    HashFields,
    Late,
    PublicRow,
    PublicWrite,
    fingerprint,
    instead_of,
    public_forms,
)
from chalicelib.cache.public_store import PublicStore, public_store
from chalicelib.cache.recovery import Recovery
from chalicelib.cache.write_behind_totals import (
    CounterRecord,
    CounterTotals,
    CounterTotalsStore,
    EntryMissing,
    OutOfRange,
    declaration,
)

__all__ = [
    "LEASE",
    "MARK",
    "Affected",
    "Cache",
    "CounterRecord",
    "CounterTotals",
    "CounterTotalsStore",
    "Entry",
    "EntryMissing",
    "Fenced",
    "Found",
    "Garbage",
    "Generations",
    "HashFields",
    "Late",
    "Leases",
    "OutOfRange",
    "Pending",
    "PublicRow",
    "PublicStore",
    "PublicWrite",
    "Recovery",
    "Token",
    "declaration",
    "fingerprint",
    "instead_of",
    "new_token",
    "public_forms",
    "public_store",
]
