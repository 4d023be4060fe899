"""What is timed: reads and writes of a batch, with and without the cache."""

import random
from dataclasses import dataclass
from typing import Any, Literal

Row = dict[str, Any]

WORDS = ("Comet", "Onyx", "Zéphyr", "Ember", "frost", "echo", "magnet", "Bao", "Iván", "黒豹")
INTEGERS = (-(2**31), 2**31 - 1)


@dataclass(frozen=True)
class Flow:
    """`is_cold`: nothing is cached when the call begins."""

    name: str
    verb: Literal["read", "insert", "replace"] = "read"
    table: str = "heroes"
    use_cache: bool = True
    is_cold: bool = False


HIT = Flow("full hit")
MISS = Flow("miss", is_cold=True)
UNCACHED = Flow("uncached read", use_cache=False)
INSERT_HEROES = Flow("insert heroes", "insert")
"""Heroes are also cached by xp: a new row changes what those cells show."""
INSERT_PRODUCTS = Flow("insert products", "insert", "products")
REPLACE = Flow("replace heroes", "replace")
INSERT_UNCACHED = Flow("insert heroes, no cache", "insert", use_cache=False)
FLOWS = (HIT, MISS, UNCACHED, INSERT_HEROES, INSERT_PRODUCTS, REPLACE, INSERT_UNCACHED)


def fresh_rows(table: str, count: int) -> list[Row]:
    """Rows as a client sends them: without their key."""
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
