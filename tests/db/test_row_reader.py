"""Rows read straight off the buffer are the driver's own rows."""

from typing import Any

import pymysql
from hypothesis import given, settings
from hypothesis import strategies as st

from chalicelib.db.mysql.row_reader import RowReader
from local.servers import MariaDB

VALUES = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
    st.sampled_from([250, 251, 255, 65_535, 65_536, 70_000]).map(lambda size: "ñ" * size),
)


class OurConnection(pymysql.connections.Connection):
    def _read_query_result(self, unbuffered: bool = False) -> int:
        result = RowReader(self)
        result.read()
        self._result = result
        return int(result.affected_rows or 0)


def connect(mariadb: MariaDB, kind: Any) -> Any:
    settings = mariadb.environment()
    return kind(
        host=settings["DB_HOST"],
        port=int(settings["DB_PORT"]),
        user=settings["DB_USER"],
        password=settings["DB_PASS"],
        charset="utf8mb4",
        ssl_disabled=True,
    )


@settings(max_examples=100, deadline=None)
@given(rows=st.integers(1, 4).flatmap(lambda width: st.lists(st.tuples(*[VALUES] * width))))
def test_rows_are_those_of_the_driver(mariadb: MariaDB, rows: list[tuple[object, ...]]) -> None:
    if not rows:
        return
    query = " UNION ALL ".join(f"SELECT {','.join(['%s'] * len(row))}" for row in rows)
    values = [value for row in rows for value in row]
    found = []
    for kind in (OurConnection, pymysql.connections.Connection):
        with connect(mariadb, kind) as connection, connection.cursor() as cursor:
            cursor.execute(query, values)
            found.append(cursor.fetchall())

    assert found[0] == found[1]
