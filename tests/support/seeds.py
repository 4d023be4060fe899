"""The rows of the first `make run`, put into the tables of a test without an S3."""

import csv

from local.home_folder import SEEDED_TABLES
from local.machine import ROOT
from local.servers import MariaDB


def insert_seed_rows(database: MariaDB) -> None:
    """Every row of seed/<table>.csv into its table, which is empty."""
    for table in SEEDED_TABLES:
        with (ROOT / "seed" / f"{table}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        slots = ", ".join(["%s"] * len(rows[0]))
        with database.connect_as_root() as connection, connection.cursor() as cursor:
            cursor.executemany(f"INSERT INTO {table} VALUES ({slots})", rows)
