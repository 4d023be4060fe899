"""The worlds that the model searches: who writes what, who reads, and which faults there are."""

from dataclasses import replace

from tests.model.state import Faults, World

REPLACES = World(readers=1)
OUTAGE = replace(REPLACES, faults=Faults(outages=1))
FAILOVER = replace(REPLACES, faults=Faults(failovers=1))
ONE = replace(REPLACES, writes=(("replace", 0),), converges=False)
FAILBACK = replace(ONE, faults=Faults(failovers=1, failbacks=1))
NEW_ROW = World(writes=(("insert", 0), ("delete", 0)), rows=(0,), readers=1)
LOOKUP = World(writes=(("replace", 0), ("replace", 1)), rows=(1, 1), readers=1)
FILE = World(writes=(("load", 0), ("replace", 0)), readers=1)
BULK = World(writes=(("bulk", 0), ("replace", 0)), readers=1)
NEW_IN_LOOKUP = World(writes=(("insert", 0), ("replace", 1)), rows=(0, 1), readers=1)
TWO_NEW = World(writes=(("insert", 0), ("insert", 1)), rows=(0, 0), readers=1)
LEFT = World(writes=(("delete", 0), ("elsewhere", 0)), rows=(1, 1), readers=1)
RETRY = replace(REPLACES, faults=Faults(flushes=1, crashes=1, retries=1), converges=False)
PLAIN = World(writes=(("plain", 0), ("run", 0), ("replace", 0)), readers=1)
PLAIN_IN_LOOKUP = World(writes=(("plain", 0), ("run", 0), ("replace", 1)), rows=(1, 1), readers=1)
PLAIN_AND_NEW = World(writes=(("plain", 0), ("run", 0), ("insert", 1)), rows=(1, 0), readers=1)
TWO_DRAINS = World(writes=(("plain", 0), ("run", 0), ("fresh", 0)), readers=1)
DRAINED_TWICE = World(
    writes=(("plain", 0), ("run", 0), ("fresh", 0), ("replace", 1)), rows=(1, 1), readers=1
)
TWO_PLAIN = World(writes=(("plain", 0), ("plain", 1), ("run", 0)), rows=(1, 1), readers=1)
MANY_PLAIN = World(writes=(("plain", 0), ("plain", 1), ("run_of_many", 0)), rows=(1, 1), readers=1)
LOST = replace(REPLACES, faults=Faults(losses=1), unknown_is_shown=True)
HELD_UP = replace(LOST, writes=(("replace", 0),), rows=(1, 1), faults=Faults(losses=1, sleeps=1))
REFUSED = replace(REPLACES, faults=Faults(refusals=1, outages=1))
THREE = World(writes=(("replace", 0), ("replace", 0), ("replace", 0)), readers=1)
THREE_NEW = World(writes=(("insert", 0), ("insert", 1), ("insert", 2)), rows=(0, 0, 0), readers=1)

# Each of these worlds has fewer than 65,000 states.
SMALL = {
    "a sleep": replace(REPLACES, faults=Faults(sleeps=1)),
    "a file and a new row": World(writes=(("load", 0), ("insert", 1)), rows=(1, 0), readers=1),
    "a flush": replace(REPLACES, faults=Faults(flushes=1)),
    "a crash": replace(REPLACES, faults=Faults(crashes=1)),
    "a new row that is deleted, a flush": replace(NEW_ROW, faults=Faults(flushes=1)),
    "two rows of one lookup, a crash": replace(LOOKUP, faults=Faults(crashes=1)),
    "two new rows of one lookup, a crash": replace(TWO_NEW, faults=Faults(crashes=1)),
    "an eviction": replace(REPLACES, faults=Faults(evictions=1)),
    "a refused change": replace(REPLACES, faults=Faults(refusals=1)),
    "a lost connection": LOST,
    "a lost connection, a lookup": replace(LOST, writes=LOOKUP.writes, rows=LOOKUP.rows),
    "a lost connection, two new rows of one lookup": replace(
        LOST, writes=TWO_NEW.writes, rows=TWO_NEW.rows
    ),
    "a refused row of a key that is new": replace(NEW_ROW, faults=Faults(refusals=1)),
    "a file and a row, a crash": replace(FILE, faults=Faults(crashes=1)),
    "a file and a row, an outage": replace(FILE, faults=Faults(outages=1)),
    "many rows that follow their public keys, a row": BULK,
    "many rows that follow their public keys, a row, a crash": replace(
        BULK, faults=Faults(crashes=1)
    ),
    "a new row in a lookup, a crash": replace(NEW_IN_LOOKUP, faults=Faults(crashes=1)),
    "a lost connection, a lookup, a database that holds up the rest": HELD_UP,
    "a row that left a lookup is changed again": LEFT,
    "a row that left a lookup is changed again, a flush": replace(LEFT, faults=Faults(flushes=1)),
    "a row that left a lookup is changed again, a flush and a crash": replace(
        LEFT, faults=Faults(flushes=1, crashes=1), converges=False
    ),
    "a row that left a lookup is changed again, a sleep": replace(LEFT, faults=Faults(sleeps=1)),
    "a row that left a lookup is changed again, a crash": replace(
        LEFT, faults=Faults(crashes=1), converges=False
    ),
    "a row that left a lookup is changed again, an outage": replace(
        LEFT, faults=Faults(outages=1), converges=False
    ),
    "a row that left a lookup is changed again, a failover": replace(
        LEFT, faults=Faults(failovers=1), converges=False
    ),
    "plain SQL, a run and a replace": PLAIN,
    "plain SQL, a run and a replace, a flush": replace(PLAIN, faults=Faults(flushes=1)),
    "plain SQL, a run and a new row of one lookup": PLAIN_AND_NEW,
    "plain SQL, a run and a replace in a lookup": PLAIN_IN_LOOKUP,
    "plain SQL, a run and a replace in a lookup, a sleep": replace(
        PLAIN_IN_LOOKUP, faults=Faults(sleeps=1)
    ),
    "plain SQL, a run and a fresh read": TWO_DRAINS,
    "plain SQL, a run and a fresh read, a crash": replace(TWO_DRAINS, faults=Faults(crashes=1)),
    "plain SQL, a run and a fresh read, a flush": replace(TWO_DRAINS, faults=Faults(flushes=1)),
    "plain SQL, a run and a fresh read, an outage": replace(TWO_DRAINS, faults=Faults(outages=1)),
    "plain SQL twice and a run, a crash": replace(TWO_PLAIN, faults=Faults(crashes=1)),
    "plain SQL twice and a run that finds too many changes, a crash": replace(
        MANY_PLAIN, faults=Faults(crashes=1)
    ),
}

LARGE = {
    "plain SQL, a run and a replace, an outage": replace(
        PLAIN, faults=Faults(outages=1), converges=False
    ),
    "plain SQL, a run and a replace, a failover": replace(
        PLAIN, faults=Faults(failovers=1), converges=False
    ),
    "plain SQL, a run and a new row of one lookup, a flush and an outage": replace(
        PLAIN_AND_NEW, faults=Faults(flushes=1, outages=1), converges=False
    ),
    "plain SQL, a run, a fresh read and a replace": DRAINED_TWICE,
    "plain SQL, a run, a fresh read and a replace, a crash": replace(
        DRAINED_TWICE, faults=Faults(crashes=1), converges=False
    ),
    "plain SQL, a run, a fresh read and a replace, a flush": replace(
        DRAINED_TWICE, faults=Faults(flushes=1), converges=False
    ),
    "plain SQL, a run and a fresh read, a failover": replace(
        TWO_DRAINS, faults=Faults(failovers=1), converges=False
    ),
    "plain SQL twice and a run that finds too many changes, a failover": replace(
        MANY_PLAIN, faults=Faults(failovers=1), converges=False
    ),
    "a sleep and a crash": replace(REPLACES, faults=Faults(sleeps=1, crashes=1), converges=False),
    "two new rows of one lookup, a sleep": replace(TWO_NEW, faults=Faults(sleeps=1)),
    "two rows of one lookup, a sleep and a crash": replace(
        LOOKUP, faults=Faults(sleeps=1, crashes=1), converges=False
    ),
    "a new row in a lookup, a sleep and a flush": replace(
        NEW_IN_LOOKUP, faults=Faults(sleeps=1, flushes=1)
    ),
    "a new row that is deleted, a sleep, a flush": replace(
        NEW_ROW, faults=Faults(sleeps=1, flushes=1)
    ),
    "a new row that is deleted, an outage": replace(NEW_ROW, faults=Faults(outages=1)),
    "a new row that is deleted, a failover": replace(NEW_ROW, faults=Faults(failovers=1)),
    "two new rows of one lookup, an outage": replace(TWO_NEW, faults=Faults(outages=1)),
    "two new rows of one lookup, two flushes": replace(TWO_NEW, faults=Faults(flushes=2)),
    "two new rows of one lookup, a failover": replace(TWO_NEW, faults=Faults(failovers=1)),
    "two new rows of one lookup, a flush, a crash, a retry": replace(
        TWO_NEW, faults=RETRY.faults, converges=False
    ),
    "a new row in a lookup, an eviction": replace(NEW_IN_LOOKUP, faults=Faults(evictions=1)),
    "a new row in a lookup, a failover": replace(NEW_IN_LOOKUP, faults=Faults(failovers=1)),
    "two new rows of one lookup, a flush and an outage": replace(
        TWO_NEW, faults=Faults(outages=1, flushes=1)
    ),
    "three new rows of one lookup": THREE_NEW,
    "three rows of one lookup": World(
        writes=(("replace", 0), ("replace", 1), ("insert", 2)), rows=(1, 1, 0), readers=1
    ),
    "three replaces": THREE,
    "a flush and a crash, two readers": World(faults=Faults(flushes=1, crashes=1), converges=False),
    "an outage": OUTAGE,
    "a failover": FAILOVER,
    "a failover and a failback": FAILBACK,
    "a crash, a flush and an outage": replace(
        REPLACES, faults=Faults(crashes=1, flushes=1, outages=1), converges=False
    ),
    "a flush, a crash and a retry": RETRY,
    "an outage, a crash and a retry": replace(
        RETRY, faults=Faults(outages=1, crashes=1, retries=1), max_generations=4
    ),
    "a failover, a crash and a retry": replace(
        ONE, faults=Faults(failovers=1, crashes=1, retries=1)
    ),
    "two rows of one lookup, a flush, a crash and a retry": replace(
        LOOKUP, faults=RETRY.faults, converges=False
    ),
    "two rows of one lookup, a flush": replace(LOOKUP, faults=Faults(flushes=1)),
    "two rows of one lookup, an outage": replace(LOOKUP, faults=Faults(outages=1)),
    "two rows of one lookup, a failover": replace(LOOKUP, faults=Faults(failovers=1)),
    "two new rows of one lookup, a flush": replace(TWO_NEW, faults=Faults(flushes=1)),
    "two rows of one lookup, an eviction": replace(LOOKUP, faults=Faults(evictions=1)),
    "two new rows of one lookup, an eviction": replace(TWO_NEW, faults=Faults(evictions=1)),
    "a refused change and an outage": REFUSED,
    "a lost connection and an outage": replace(
        REPLACES, faults=Faults(losses=1, outages=1), converges=False
    ),
    "a lost connection, a flush and a retry": replace(
        REPLACES, faults=Faults(losses=1, flushes=1, retries=1), converges=False
    ),
    "a refused change and a flush": replace(REPLACES, faults=Faults(refusals=1, flushes=1)),
    "a refused change in a lookup": replace(LOOKUP, faults=Faults(refusals=1)),
    "a refused new row in a lookup": replace(NEW_IN_LOOKUP, faults=Faults(refusals=1)),
    "a new row in a lookup, a flush": replace(NEW_IN_LOOKUP, faults=Faults(flushes=1)),
    "a new row in a lookup, an outage": replace(NEW_IN_LOOKUP, faults=Faults(outages=1)),
    "two new rows of one lookup, two readers": replace(TWO_NEW, readers=2),
    "a new row in a lookup, two readers, a crash": replace(
        NEW_IN_LOOKUP, readers=2, faults=Faults(crashes=1), converges=False
    ),
    "an outage, two readers": replace(OUTAGE, readers=2, converges=False),
    "a failover and a crash": replace(
        REPLACES, faults=Faults(failovers=1, crashes=1), converges=False
    ),
    "a failover and a flush": replace(
        REPLACES, faults=Faults(failovers=1, flushes=1), converges=False
    ),
    "a failover and an outage": replace(
        REPLACES, faults=Faults(failovers=1, outages=1), converges=False
    ),
    "two new rows of one lookup, an outage and a crash": replace(
        TWO_NEW, faults=Faults(outages=1, crashes=1), converges=False
    ),
    "three new rows of one lookup, a flush": replace(
        THREE_NEW, faults=Faults(flushes=1), converges=False
    ),
    "three replaces, a crash": replace(THREE, faults=Faults(crashes=1), converges=False),
    "a refused change and a crash": replace(
        REPLACES, faults=Faults(refusals=1, crashes=1), converges=False
    ),
    "a refused change and an eviction": replace(REPLACES, faults=Faults(refusals=1, evictions=1)),
    "two rows of one lookup, two evictions": replace(LOOKUP, faults=Faults(evictions=2)),
    "a new row that is deleted, a crash and a flush": replace(
        NEW_ROW, faults=Faults(crashes=1, flushes=1), converges=False
    ),
    "a refused row of a key that is new, a flush": replace(
        NEW_ROW, faults=Faults(refusals=1, flushes=1)
    ),
    "two new rows of one lookup, a lost connection and an outage": replace(
        TWO_NEW, faults=Faults(losses=1, outages=1), converges=False
    ),
    "a sleep, a crash and a flush, two new rows of one lookup": replace(
        TWO_NEW, faults=Faults(sleeps=1, crashes=1, flushes=1), converges=False
    ),
}
