"""`seed/by_hand.sql` as a person runs it, with the database's own client, on a real server."""

import csv
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from local.servers import MariaDB
from tests.support.client import ROOT

SCRIPT = (ROOT / "seed" / "by_hand.sql").read_text(encoding="utf-8")
LOCAL = "LOAD DATA LOCAL INFILE 'seed/heroes.csv'"
FROM_S3 = "LOAD DATA FROM S3 's3://BUCKET/heroes.csv'"
DATABASE = "by_hand"


def seed_rows() -> list[list[str]]:
    with (ROOT / "seed" / "heroes.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def by_hand(mariadb: MariaDB) -> Iterator[MariaDB]:
    """The server, on which nothing of the script is left afterwards."""
    yield mariadb
    mariadb.query(f"DROP DATABASE IF EXISTS {DATABASE}")


def run(server: MariaDB, script: str) -> list[list[str]]:
    """The rows that the client shows."""
    client = shutil.which("mariadb") or shutil.which("mysql")
    assert client, "the database's own client is not on the PATH"
    ran = subprocess.run(
        [
            *(client, "--no-defaults", "--local-infile=1", "--default-character-set=utf8mb4"),
            *(f"--host={server.address}", f"--port={server.port}", "--user=root"),
        ],
        input=script,
        env={"MYSQL_PWD": server._secret("root-password")},
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    return [line.split("\t") for line in ran.stdout.splitlines()]


def test_the_script_makes_database_table_and_rows_and_shows_the_first_five(
    by_hand: MariaDB,
) -> None:
    for _ in range(2):
        header, *shown = run(by_hand, SCRIPT)

        assert header == ["id", "hero", "power", "name", "xp", "color"]
        assert shown == seed_rows()[:5]
    stored = by_hand.query(f"SELECT * FROM {DATABASE}.heroes ORDER BY id")
    assert [[str(value) for value in row] for row in stored] == seed_rows()


def test_its_table_is_the_one_of_the_schema(by_hand: MariaDB) -> None:
    run(by_hand, SCRIPT)

    def columns_and_indexes(database: str) -> str:
        [(_, statement)] = by_hand.query(f"SHOW CREATE TABLE {database}.heroes")
        return str(statement).partition("\n) ENGINE=")[0]

    assert columns_and_indexes(DATABASE) == columns_and_indexes(by_hand.database)


def test_on_aurora_one_line_takes_the_place_of_another(by_hand: MariaDB) -> None:
    """But for where the bytes come from the statement is the same."""
    on_aurora = SCRIPT.replace(f"{LOCAL}", f"-- {LOCAL}").replace(f"-- {FROM_S3}", FROM_S3)
    assert on_aurora.count(f"\n{FROM_S3} REPLACE\n") == 1
    assert f"\n{LOCAL}" not in on_aurora

    shown = run(by_hand, on_aurora.replace(FROM_S3, LOCAL))

    assert shown[1:] == seed_rows()[:5]
