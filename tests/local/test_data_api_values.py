"""What goes into the Data API and comes out of it: parameters, values, metadata, JSON."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local.servers import DataApi, MariaDB
from tests.support.data_api import Client, answered, parameter


@pytest.fixture
def client(data_api: DataApi) -> Client:
    return Client(data_api)


@pytest.fixture
def scratch(mariadb: MariaDB) -> Iterator[MariaDB]:
    """Nothing, or a table `scratch` that the test makes."""
    mariadb.query("DROP TABLE IF EXISTS scratch")
    yield mariadb
    mariadb.query("DROP TABLE IF EXISTS scratch")


STRINGS = [
    "",
    "plain",
    "it's \"quoted\" `three` ways \\' \\\\ \\n",
    "line\nfeed\r\ttab\0nul\x1a",
    "Ünï cödé 🌠",
    ":name ; -- # /* */ %s %(x)s ?",
    "'; DROP TABLE heroes; --",
]


@pytest.mark.parametrize("text", STRINGS)
def test_a_string_comes_back_as_it_was_sent(client: Client, text: str) -> None:
    sent = parameter("text", text)

    assert client.value("SELECT :text", parameters=[sent]) == {"stringValue": text}


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (2**63 - 1, {"longValue": 2**63 - 1}),
        (-(2**63), {"longValue": -(2**63)}),
        (True, {"longValue": 1}),
        (False, {"longValue": 0}),
        (None, {"isNull": True}),
        (0.1, {"doubleValue": 0.1}),
        (-1e300, {"doubleValue": -1e300}),
        (5e-324, {"doubleValue": 5e-324}),
        (b"\x00\xff'\\", {"blobValue": b"\x00\xff'\\"}),
        (b"", {"blobValue": b""}),
    ],
    ids=str,
)
def test_a_value_keeps_its_type(client: Client, value: Any, field: dict[str, Any]) -> None:
    assert client.value("SELECT :v", parameters=[parameter("v", value)]) == field


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT ':a', :a", [{"stringValue": ":a"}, {"longValue": 1}]),
        ('SELECT ":a", :a', [{"stringValue": ":a"}, {"longValue": 1}]),
        ("SELECT ':a''\\':a', :a", [{"stringValue": ":a'':a".replace("''", "''")}, None]),
        ("SELECT :a AS `:a`", [{"longValue": 1}]),
        ("SELECT :a -- :b\n", [{"longValue": 1}]),
        ("SELECT :a # :b\n", [{"longValue": 1}]),
        ("SELECT :a /* :b\n:c */", [{"longValue": 1}]),
        ("SELECT :a, :a, 1-:a", [{"longValue": 1}, {"longValue": 1}, {"longValue": 0}]),
        ("SELECT @x := :a", [{"longValue": 1}]),
        ("SELECT 1 LIMIT :a", [{"longValue": 1}]),
    ],
)
def test_only_a_name_outside_of_text_and_comments_is_a_parameter(
    client: Client, sql: str, expected: list[Any]
) -> None:
    [row] = client.execute(sql, parameters=[parameter("a", 1)])["records"]

    assert len(row) == len(expected)
    if None not in expected:
        assert row == expected


def test_a_negative_number_behind_a_minus_is_no_comment(client: Client) -> None:
    sent = [parameter("a", -1), parameter("b", -1.5)]

    [row] = client.execute("SELECT 1 -:a, 1 -:b", parameters=sent)["records"]
    assert row == [{"longValue": 2}, {"doubleValue": 2.5}]


@pytest.mark.parametrize(
    ("sql", "parameters", "code", "words"),
    [
        ("SELECT :a", [], "ValidationException", "Cannot find parameter: a"),
        ("SELECT 1", [parameter("a", 1)], "ValidationException", "has no parameter: a"),
        ("SELECT :a", [parameter("a", 1)] * 2, "ValidationException", "given twice"),
        ("SELECT :a", [{"name": "a"}], "ValidationException", "a name and a value"),
        ("SELECT :a", [{"value": {"longValue": 1}}], "ValidationException", "a name and a value"),
        (
            "SELECT :a",
            [{"name": "a", "value": {"isNull": False}}],
            "ValidationException",
            "isNull is false",
        ),
        (
            "SELECT :a",
            [{"name": "a", "value": {"arrayValue": {"longValues": [1]}}}],
            "BadRequestException",
            "Array parameters are not supported",
        ),
        ("SELECT 1 FROM :a", [parameter("a", "heroes")], "DatabaseErrorException", "1064"),
        ("SELECT ?", [], "DatabaseErrorException", "1064"),
        (" ", [], "ValidationException", "empty"),
    ],
)
def test_parameters_that_do_not_fit_the_statement_are_rejected(
    client: Client, sql: str, parameters: list[Any], code: str, words: str
) -> None:
    with answered(code, words):
        client.execute(sql, parameters=parameters)


@pytest.mark.parametrize(
    ("hint", "text", "field"),
    [
        ("DECIMAL", "-12.50", {"stringValue": "-12.50"}),
        ("DATE", "2026-02-28", {"stringValue": "2026-02-28"}),
        ("TIME", "23:59:59.123", {"stringValue": "23:59:59.123"}),
        ("TIMESTAMP", "2026-02-28 23:59:59", {"stringValue": "2026-02-28 23:59:59"}),
        ("TIMESTAMP", "2026-02-28 23:59:59.123", {"stringValue": "2026-02-28 23:59:59.123"}),
        ("JSON", '{"a": [1]}', {"stringValue": '{"a": [1]}'}),
        (
            "UUID",
            "123e4567-e89b-12d3-a456-426614174000",
            {"stringValue": "123e4567-e89b-12d3-a456-426614174000"},
        ),
    ],
)
def test_a_type_hint_takes_what_it_says(
    client: Client, hint: str, text: str, field: dict[str, Any]
) -> None:
    sent = [parameter("v", text, hint)]

    assert client.value("SELECT :v", parameters=sent) == field


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        ("DECIMAL", "1,5"),
        ("DECIMAL", "1 OR 1"),
        ("DATE", "2026-02-29"),
        ("DATE", "28.02.2026"),
        ("TIME", "24:00:00"),
        ("TIME", "12:00"),
        ("TIMESTAMP", "2026-02-28T12:00:00"),
        ("TIMESTAMP", "2026-02-28 12:00:00.123456"),
        ("JSON", "{"),
        ("UUID", "123e4567"),
        ("DATE", 20_260_228),
    ],
)
def test_a_type_hint_rejects_anything_else(client: Client, hint: str, value: Any) -> None:
    with answered("ValidationException", hint):
        client.execute("SELECT :v", parameters=[parameter("v", value, hint)])


COLUMNS = [
    ("TINYINT(1)", "1", {"booleanValue": True}),
    ("BOOLEAN", "0", {"booleanValue": False}),
    ("TINYINT", "-5", {"longValue": -5}),
    ("SMALLINT UNSIGNED", "65535", {"longValue": 65_535}),
    ("MEDIUMINT", "7", {"longValue": 7}),
    ("INT", "-2147483648", {"longValue": -(2**31)}),
    ("INT UNSIGNED", "4294967295", {"longValue": 2**32 - 1}),
    ("BIGINT UNSIGNED", "9223372036854775807", {"longValue": 2**63 - 1}),
    ("FLOAT", "1.5", {"doubleValue": 1.5}),
    ("DOUBLE", "0.1", {"doubleValue": 0.1}),
    ("DECIMAL(10,2)", "12.5", {"stringValue": "12.50"}),
    ("DECIMAL(10)", "12", {"stringValue": "12"}),
    ("VARCHAR(9)", "'ü'", {"stringValue": "ü"}),
    ("CHAR(9)", "'c'", {"stringValue": "c"}),
    ("TEXT", "'t'", {"stringValue": "t"}),
    ("ENUM('a','b')", "'b'", {"stringValue": "b"}),
    ("JSON", "'{}'", {"stringValue": "{}"}),
    ("VARBINARY(9)", "X'ff00'", {"blobValue": b"\xff\0"}),
    ("BINARY(2)", "'a'", {"blobValue": b"a\0"}),
    ("BLOB", "'b'", {"blobValue": b"b"}),
    ("BIT(1)", "b'1'", {"booleanValue": True}),
    ("BIT(9)", "b'100000001'", {"blobValue": b"\x01\x01"}),
    ("DATE", "'2026-01-02'", {"stringValue": "2026-01-02"}),
    ("TIME", "'-12:00:01'", {"stringValue": "-12:00:01"}),
    ("DATETIME", "'2026-01-02 03:04:05'", {"stringValue": "2026-01-02 03:04:05"}),
    ("DATETIME(6)", "'2026-01-02 03:04:05'", {"stringValue": "2026-01-02 03:04:05"}),
    ("DATETIME(6)", "'2026-01-02 03:04:05.5'", {"stringValue": "2026-01-02 03:04:05.500"}),
    ("DATETIME(6)", "'2026-01-02 03:04:05.5001'", {"stringValue": "2026-01-02 03:04:05.500100"}),
    ("YEAR", "2026", {"stringValue": "2026"}),
    ("INT", "NULL", {"isNull": True}),
]


@pytest.mark.parametrize(("column", "literal", "field"), COLUMNS, ids=str)
def test_a_column_comes_back_as_its_type_says(
    client: Client, scratch: MariaDB, column: str, literal: str, field: dict[str, Any]
) -> None:
    scratch.query(f"CREATE TABLE scratch (v {column})")
    scratch.query(f"INSERT INTO scratch VALUES ({literal})")

    assert client.value("SELECT v FROM scratch", includeResultMetadata=True) == field


def test_numbers_come_back_as_the_options_say(client: Client) -> None:
    sql = "SELECT 12, CAST(1.50 AS DECIMAL(4,2)), CAST(3 AS DECIMAL(4))"

    def ask(**options: str) -> list[Any]:
        [row] = client.execute(sql, resultSetOptions=options)["records"]
        return list(row)

    assert ask() == [{"longValue": 12}, {"stringValue": "1.50"}, {"stringValue": "3"}]
    assert ask(decimalReturnType="STRING", longReturnType="LONG") == ask()
    assert ask(longReturnType="STRING")[0] == {"stringValue": "12"}
    assert ask(decimalReturnType="DOUBLE_OR_LONG")[1:] == [{"doubleValue": 1.5}, {"longValue": 3}]


def test_a_number_that_is_too_large_comes_back_only_as_a_string(client: Client) -> None:
    sql = "SELECT CAST(9223372036854775808 AS UNSIGNED)"
    with answered("UnsupportedResultException", "too large for longValue"):
        client.execute(sql)

    options = {"longReturnType": "STRING"}
    assert client.value(sql, resultSetOptions=options) == {"stringValue": "9223372036854775808"}


def test_a_type_that_is_not_supported_is_an_error(client: Client) -> None:
    with answered("UnsupportedResultException", "the unsupported data type GEOMETRY."):
        client.execute("SELECT POINT(1, 2)")


def test_metadata_are_those_of_a_published_answer(client: Client, scratch: MariaDB) -> None:
    scratch.query(
        "CREATE TABLE scratch (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,"
        " name VARCHAR(100), created TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP)"
    )
    answer = client.execute(
        "SELECT id, name AS n, created FROM scratch", includeResultMetadata=True
    )
    common = {
        "arrayBaseColumnType": 0,
        "isAutoIncrement": False,
        "isCaseSensitive": False,
        "isCurrency": False,
        "isSigned": False,
        "scale": 0,
        "schemaName": "",
        "tableName": "scratch",
    }
    id = {"label": "id", "name": "id", "nullable": 0, "precision": 10, "type": 4}
    name = {"label": "n", "name": "name", "nullable": 1, "precision": 100, "type": 12}
    created = {"label": "created", "name": "created", "nullable": 0, "precision": 19, "type": 93}

    assert answer["columnMetadata"] == [
        {**common, **id, "typeName": "INT UNSIGNED", "isAutoIncrement": True},
        {**common, **name, "typeName": "VARCHAR"},
        {**common, **created, "typeName": "TIMESTAMP"},
    ]
    assert answer["records"] == []


def test_metadata_name_each_type(client: Client, scratch: MariaDB) -> None:
    columns = ", ".join(f"c{i} {column}" for i, (column, _, _) in enumerate(COLUMNS))
    scratch.query(f"CREATE TABLE scratch ({columns})")
    answer = client.execute("SELECT * FROM scratch", includeResultMetadata=True)
    names = [each["typeName"] for each in answer["columnMetadata"]]
    plain = [column.partition("(")[0] for column, _, _ in COLUMNS]
    other = {"BOOLEAN": "BIT", "ENUM": "CHAR"}
    if scratch.is_mariadb:  # there it is another word for LONGTEXT
        other["JSON"] = "TEXT"

    assert names == ["BIT", *(other.get(each, each) for each in plain[1:])]
    decimals = [each for each in answer["columnMetadata"] if each["typeName"] == "DECIMAL"]
    assert [(each["precision"], each["scale"]) for each in decimals] == [(10, 2), (10, 0)]


def test_records_as_json(client: Client) -> None:
    sql = "SELECT 1 AS a, 'x\\\"ü' AS b, NULL AS c, X'6869' AS d, 1.5e0 AS e, 2.50 AS f"
    answer = client.execute(sql, formatRecordsAs="JSON", includeResultMetadata=True)

    assert answer["formattedRecords"] == (
        '[{"a":1,"b":"x\\"ü","c":null,"d":"aGk=","e":1.5,"f":"2.50"}]'
    )
    assert {"records", "columnMetadata"} & set(answer) == set()
    options = {"decimalReturnType": "DOUBLE_OR_LONG", "longReturnType": "STRING"}
    chosen = client.execute(sql, formatRecordsAs="JSON", resultSetOptions=options)
    [row] = json.loads(chosen["formattedRecords"])
    assert (row["a"], row["f"]) == ("1", 2.5)


def test_records_as_json_need_a_name_for_each_column(client: Client) -> None:
    assert client.execute("SELECT 1 AS a, 2 AS a")["records"] != []
    with answered("BadRequestException", "More than one column of the result has the name a"):
        client.execute("SELECT 1 AS a, 2 AS a", formatRecordsAs="JSON")


def test_no_rows_are_an_empty_list(client: Client) -> None:
    nothing = "SELECT 1 FROM DUAL WHERE FALSE"

    assert client.execute(nothing)["records"] == []
    assert client.execute(nothing, formatRecordsAs="JSON")["formattedRecords"] == "[]"


def test_json_is_ignored_for_what_is_no_select(client: Client, scratch: MariaDB) -> None:
    answer = client.execute("CREATE TABLE scratch (v INT)", formatRecordsAs="JSON")
    shown = client.execute("SHOW TABLES LIKE 'scratch'", formatRecordsAs="JSON")

    assert "formattedRecords" not in answer
    assert shown["records"] == [[{"stringValue": "scratch"}]]
