"""Writes a large heroes CSV to load: `id,hero,power,name,xp,color`, no header, 37 bytes a row.

Run by hand and by the benchmark. Ids are 1 to `rows` in order; `xp` is 1 to `rows` in random order,
so that every xp names exactly one hero. The same rows and seed give the same bytes.
"""

import argparse
import random
import time
from collections.abc import Iterator
from pathlib import Path

HEROES = (
    "Comet",
    "Onyx",
    "Falcon",
    "Tempest",
    "Mirage",
    "Cobalt",
    "Ember",
    "Wraith",
    "Puma",
    "Zéphyr",
)
POWERS = (
    "flight",
    "speed",
    "frost",
    "fire",
    "echo",
    "magnet",
    "shadow",
    "growth",
    "healing",
    "sonar",
)
NAMES = ("Ann", "Bao", "Cleo", "Dara", "Emre", "Fay", "Goran", "Hana", "Iván", "Jo")
COLORS = ("red", "teal", "gold", "black", "blue", "ivory", "lime", "rose", "white", "grey")

CHUNK_ROWS = 50_000


def hero_lines(rows: int, seed: int) -> Iterator[str]:
    """CSV lines for ids 1 to `rows`, a chunk of lines a string."""
    chance = random.Random(seed)
    xps = list(range(1, rows + 1))
    chance.shuffle(xps)
    # One draw for the three columns before xp: drawing each on its own takes three times as long.
    identities = [f"{hero},{power},{name}" for hero in HEROES for power in POWERS for name in NAMES]
    for start in range(0, rows, CHUNK_ROWS):
        chunk = xps[start : start + CHUNK_ROWS]
        who = chance.choices(identities, k=len(chunk))
        color = chance.choices(COLORS, k=len(chunk))
        ids = range(start + 1, start + len(chunk) + 1)
        yield "".join(
            f"{i},{identity},{xp},{c}\n"
            for i, identity, xp, c in zip(ids, who, chunk, color, strict=True)
        )


def write_heroes(output: Path, rows: int, seed: int) -> None:
    """Write `rows` heroes to `output`, over what is there."""
    with output.open("w", encoding="utf-8", newline="") as file:
        file.writelines(hero_lines(rows, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a heroes CSV with unique xp values.")
    parser.add_argument("rows", nargs="?", type=int, default=1_000_000)
    parser.add_argument("output", nargs="?", type=Path, help="default: heroes-<rows>.csv")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if not 1 <= asked.rows <= 2**31 - 1:
        parser.error("rows must be from 1 to 2147483647, the largest xp")
    output = asked.output or Path(f"heroes-{asked.rows}.csv")
    started = time.monotonic()
    write_heroes(output, asked.rows, asked.seed)
    size_mb, seconds = output.stat().st_size / 1e6, time.monotonic() - started
    print(f"{output}: {asked.rows:,} heroes, {size_mb:.1f} MB, {seconds:.1f} s")


if __name__ == "__main__":
    main()
