"""How a request may come in: any content type, base64, Lambda; every field's spellings."""

import json

import pytest

from bench.api_gateway_event import rest_event
from chalicelib.errors import BadRequest
from chalicelib.handlers import json_body
from tests.conftest import Configure
from tests.support.client import InProcess, Row, as_stored, hero, in_base64
from tests.support.witness import Witness

READ_1 = {"REQUEST": "read", "SQLS": [1]}
HERO_1: Row = as_stored(1, hero(name="Zoë 黒豹 🦊"))


@pytest.fixture
def service(lasting_generations: None, service: InProcess) -> InProcess:
    """With one hero, id 1."""
    service.write([HERO_1])
    return service


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        "application/x-www-form-urlencoded",
        "text/plain",
        "text/html",
        "application/octet-stream",
        "image/png",
        "multipart/form-data",
        "nonsense",
        "",
    ],
)
def test_the_body_is_json_whatever_its_content_type_says(
    service: InProcess, content_type: str | None
) -> None:
    body = json.dumps(READ_1).encode()

    assert service.send(body, content_type).rows == [HERO_1]


@pytest.mark.both_engines
def test_the_body_may_hold_text_as_it_is_or_escaped(service: InProcess) -> None:
    for ensure_ascii in (True, False):
        row = {**HERO_1, "id": 2}
        body = json.dumps({"REQUEST": "write", "SQLS": [row]}, ensure_ascii=ensure_ascii)
        service.send(body.encode())

        assert service.read([2], use_cache=False).rows == [row]


def test_a_base64_body_from_api_gateway_is_decoded(service: InProcess) -> None:
    assert service.send_base64(in_base64(READ_1)).rows == [HERO_1]


@pytest.mark.parametrize("encoded", ["e", "%%%%", "/+8=", "é"])
def test_a_broken_base64_body_is_refused(service: InProcess, encoded: str) -> None:
    answer = service.send_base64(encoded)

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith("body: ")


@pytest.mark.parametrize("body", [None, ""])
def test_no_body_is_refused(service: InProcess, body: str | None) -> None:
    answer = service.dispatch({**rest_event(""), "body": body})

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith("body: ")


@pytest.mark.parametrize("value", ["True", "true", "TRUE", "tRuE", True])
def test_every_spelling_of_true_uses_the_cache(
    service: InProcess, witness: Witness, value: object
) -> None:
    with witness.spent() as spent:
        answer = service.post({**READ_1, "USE_CACHE": value})

    assert answer.rows == [HERO_1]
    assert spent.commands == {"mget": 1}
    assert spent.statements == 0


@pytest.mark.parametrize("value", ["False", "false", "FALSE", "fAlSe", False])
def test_every_spelling_of_false_leaves_the_cache_alone(
    service: InProcess, witness: Witness, value: object
) -> None:
    with witness.spent() as spent:
        answer = service.post({**READ_1, "USE_CACHE": value})

    assert answer.rows == [HERO_1]
    assert spent.commands == {}
    assert spent.statements == 2, "the row, and whether it is the writer that answers"


def test_the_cache_is_used_unless_the_request_says_otherwise(
    service: InProcess, witness: Witness
) -> None:
    with witness.spent() as spent:
        assert service.post(READ_1).rows == [HERO_1]

    assert spent.commands == {"mget": 1}


@pytest.mark.parametrize(
    "payload",
    [
        READ_1,
        {**READ_1, "SQLS": [1, "1", 5, 5]},
        {**READ_1, "SQLS": [10, 11], "BY": "xp", "USE_CACHE": False},
        {**READ_1, "SQLS": []},
        {"REQUEST": "write", "SQLS": []},
        {"REQUEST": "write", "SQLS": [{**HERO_1, "name": "again"}]},
        {"REQUEST": "write", "SQLS": [hero()], "IDEMPOTENCY_KEY": "once"},
        {"REQUEST": "write", "SQLS": [hero()], "IDEMPOTENCY_KEY": ""},
        {"REQUEST": "delete", "SQLS": []},
        {"REQUEST": "delete", "SQLS": [7, "8"]},
        {"REQUEST": "delete", "SQLS": [1], "IDEMPOTENCY_KEY": "once"},
        {"REQUEST": "read"},
        {"REQUEST": "write", "SQLS": [{"id": 0}]},
        [1, 2],
        "read",
        7,
    ],
)
def test_the_lambda_function_returns_what_http_answers(service: InProcess, payload: object) -> None:
    assert service.invoke(payload) == service.post(payload).fields


@pytest.mark.both_engines
def test_the_lambda_function_writes_reads_and_deletes(service: InProcess) -> None:
    rows = [hero(name="L1"), hero(name="L2")]

    written = service.invoke({"REQUEST": "write", "SQLS": rows})
    read = service.invoke({"REQUEST": "read", "SQLS": [*written["ids"], 999]})

    expected = [as_stored(id, row) for id, row in zip(written["ids"], rows)]
    assert written == {"statusCode": 200, "body": "write success", "ids": written["ids"]}
    assert read == {"statusCode": 200, "body": expected, "missing": [999]}
    deleted = service.invoke({"REQUEST": "delete", "SQLS": [999, *written["ids"]]})
    assert deleted == {"statusCode": 200, "body": "delete success", "deleted": written["ids"]}


@pytest.mark.parametrize("payload", [None, True, 1.5, float("nan"), [[]], {1: 2}, {"SQLS": {}}])
def test_the_lambda_function_refuses_what_is_no_request(
    service: InProcess, payload: object
) -> None:
    answer = service.invoke(payload)

    assert answer["statusCode"] == 400
    assert answer["body"]["error"] == "BadRequest"


@pytest.mark.both_engines
def test_read_by_makes_an_unchanged_client_read_by_xp(
    service: InProcess, configure: Configure
) -> None:
    configure(READ_BY="xp")

    for use_cache in (True, True, False):
        assert service.read([10], use_cache).rows == [HERO_1]
        assert service.read([1], use_cache, BY="id").rows == [HERO_1]


def test_read_by_leaves_tables_without_that_column_to_their_key(
    service: InProcess, configure: Configure
) -> None:
    configure(READ_BY="xp")
    service.write([{"EmpId": "e-1", "EmpName": "Ada"}], TABLE="employees")

    answer = service.read(["e-1"], TABLE="employees")

    assert answer.rows == [{"EmpId": "e-1", "EmpName": "Ada"}]


@pytest.mark.both_engines
def test_db_table_is_the_table_of_requests_that_name_none(
    service: InProcess, configure: Configure
) -> None:
    configure(DB_TABLE="employees")
    row = {"EmpId": "e-1", "EmpName": "Ada"}

    assert service.write([row]).ids == ["e-1"]
    assert service.read(["e-1"]).rows == [row]
    assert service.read([1], TABLE="heroes").rows == [HERO_1]


class Counted(str):
    """A name that counts how often it is compared."""

    comparisons = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)


def test_a_field_given_twice_is_found_in_one_pass_over_the_fields() -> None:
    """A body may hold hundreds of thousands of fields: compared in pairs they take minutes."""
    count = 2_000
    names = [f"field {number}" for number in range(count)]
    fields = [(Counted(name), None) for name in [*names, names[-1]]]
    Counted.comparisons = 0

    with pytest.raises(BadRequest, match=f"the field 'field {count - 1}' twice"):
        json_body._unique_fields(fields)  # type: ignore[arg-type]

    assert Counted.comparisons <= 10 * count
