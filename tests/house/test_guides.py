"""The guides in docs/ are true: the figures in them, and what they say where a thing is."""

import csv
import re
from pathlib import Path

from chalicelib.ingest import csv_bytes, csv_dialect, csv_rows, service
from tests.history import ingredients
from tests.model import counters, many, test_counters, test_many, test_model, worlds

ROOT = Path(__file__).parents[2]
NUMBERS = {10: "ten", 11: "eleven", 12: "twelve", 13: "thirteen", 14: "fourteen"}


def guide(name: str) -> str:
    """The text of a guide, in one line."""
    return " ".join((ROOT / "docs" / name).read_text(encoding="utf-8").split())


def test_the_cache_counts_the_worlds_and_the_plays_that_there_are() -> None:
    plays = NUMBERS[len(ingredients.PLAYS)]
    for words in (
        f"`make test` and `make proof` search {len(worlds.SMALL)} small worlds whole",
        f"`make proof` {len(worlds.LARGE)} larger ones, each until 50,000 states",
        f"Each of {len(test_model.WITHOUT)} ingredients taken out alone",
        f"`make test` and `make proof` search {len(many.SMALL)} worlds whole",
        f"`make proof` {len(many.LARGE)} larger ones, each until 50,000 states",
        f"Each of {len(test_many.WITHOUT)} ingredients taken out alone",
        f"`make test` searches {len(counters.SMALL)} worlds",
        f"`make proof` {len(counters.LARGE)} larger ones with two faults",
        f"Each of {len(test_counters.WITHOUT)} ingredients taken out alone",
        f"in each of {plays} plays where something is missing",
    ):
        assert words in guide("cache.md"), words


def test_the_cache_says_where_each_step_is() -> None:
    text = (ROOT / "docs" / "cache.md").read_text(encoding="utf-8")
    _, _, rows = text.partition("| step | code | where in `chalicelib/` |\n")
    rows, _, _ = rows.partition("\n\n")
    _, *steps = [line.strip("| ").split(" | ") for line in rows.splitlines()]
    assert steps
    for *_, code, where in steps:
        paths = re.findall(r"`([^`]+)`", where)
        source = "\n".join((ROOT / "chalicelib" / path).read_text("utf-8") for path in paths)
        for name in re.findall(r"[\w]+", " ".join(re.findall(r"`([^`]+)`", code))):
            assert re.search(rf"\b(def|class) {name}\b|\bself\.{name} = ", source), (name, paths)


def test_the_ingest_tells_the_limits_of_the_code() -> None:
    for words in (
        f"A file of up to {service.MAX_SMALL_BYTES >> 10} KB (also unzipped)",
        f"and {service.MAX_SMALL_ROWS:,} rows is a write like any other",
        f"in a file of {service.MIN_ROWS_TO_JUDGE} rows or more",
        f"fewer of the first {csv_dialect.READ_AHEAD_LINES} lines lack",
        f"not within {csv.field_size_limit():,} characters",
        f"a line of more than {csv_bytes.MAX_LINE_BYTES >> 20} MB",
        f"more than {csv_bytes.MAX_EXPANSION} times as large",
        f"(and more than {csv_bytes.EXPANSION_CHECKED_FROM_BYTES // 10**6} MB)",
        f"more than {csv_bytes.MAX_EMPTY_MEMBERS:,} empty gzip files",
    ):
        assert words in guide("ingest.md"), words
    assert csv_rows.BATCH_ROWS == 1_000
    assert "with checked rows, a thousand at a time" in guide("ingest.md")
