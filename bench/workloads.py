"""The requests that are timed: reads and writes of a batch, with and without the cache."""

import random
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]

WORDS = ("Comet", "Onyx", "Zéphyr", "Ember", "frost", "echo", "magnet", "Bao", "Iván", "黒豹")
INTEGERS = (-(2**31), 2**31 - 1)


@dataclass(frozen=True)
class Workload:
    """One kind of request. `is_cold`: the cache is empty when the call begins."""

    name: str
    verb: Literal["read", "insert", "replace"] = "read"
    table: str = "heroes"
    use_cache: bool = True
    is_cold: bool = False


HIT = Workload("full hit")
MISS = Workload("miss", is_cold=True)
UNCACHED = Workload("uncached read", use_cache=False)
# Heroes are also cached by xp: a new row changes the entries of its xp.
INSERT_HEROES = Workload("insert heroes", "insert")
INSERT_PRODUCTS = Workload("insert products", "insert", "products")
REPLACE = Workload("replace heroes", "replace")
INSERT_UNCACHED = Workload("insert heroes, no cache", "insert", use_cache=False)
WORKLOADS = (HIT, MISS, UNCACHED, INSERT_HEROES, INSERT_PRODUCTS, REPLACE, INSERT_UNCACHED)


def fresh_rows(table: str, count: int) -> list[Row]:
    """Rows as a client sends them: without their database key."""
    return [_fresh_hero() if table == "heroes" else _fresh_product() for _ in range(count)]


def _fresh_hero() -> Row:
    return {
        "hero": random.choice(WORDS),
        "power": random.choice(WORDS),
        "name": f"{random.choice(WORDS)} {random.getrandbits(32):08x}",
        "xp": random.randint(*INTEGERS),
        "color": random.choice(WORDS),
    }


def _fresh_product() -> Row:
    return {
        "ProductName": f"{random.choice(WORDS)} {random.getrandbits(32):08x}",
        "Description": random.choice(WORDS),
        "QuantityInStock": random.randint(*INTEGERS),
        "Price": random.randint(*INTEGERS),
    }
