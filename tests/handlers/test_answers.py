"""What stands around an answer: headers, the line in the log, and the one shape of errors."""

import gzip
import json
import logging
import os
import re
import zlib
from typing import Any

import pytest
from chalice.app import Chalice

from app import app
from bench.api_gateway_event import rest_event
from chalicelib.handlers.json_body import MAX_BODY_BYTES
from tests.conftest import Configure
from tests.house.test_house import run_python
from tests.support.client import Answer, InProcess, heroes
from tests.support.witness import Witness

READ = json.dumps({"REQUEST": "read", "SQLS": [1]}).encode()


def cache_status(answer: Answer) -> str:
    return answer.headers["cache-status"]


@pytest.mark.both_engines
def test_a_read_says_how_many_values_the_cache_had(service: InProcess) -> None:
    service.write(heroes(3), use_cache=False)

    said = [cache_status(service.read(values)) for values in ([1, 2], [1, 2, 2], [1, 2, 3, 99])]

    assert said == [
        'herocache; fwd=miss; detail="0 of 2"',
        'herocache; hit; detail="2 of 2"',
        'herocache; fwd=partial; detail="2 of 4"',
    ]


@pytest.mark.both_engines
def test_a_read_by_a_lookup_says_so_too(service: InProcess) -> None:
    service.write(heroes(3), use_cache=False)

    said = [cache_status(service.read([1, 2, 3], BY="xp")) for _ in range(2)]

    assert said == ['herocache; fwd=miss; detail="0 of 3"', 'herocache; hit; detail="3 of 3"']


def test_a_read_without_the_cache_says_that_it_went_by_it(
    service: InProcess, configure: Configure
) -> None:
    assert cache_status(service.read([1], use_cache=False)) == "herocache; fwd=bypass"
    configure(REDIS_URL=None)
    said = cache_status(service.read([1]))
    assert said == 'herocache; fwd=bypass; detail="not in use"'


def test_a_read_that_redis_failed_says_that_the_cache_is_not_in_use(
    service: InProcess, configure: Configure
) -> None:
    configure(REDIS_URL="redis://127.0.0.1:1")

    said = cache_status(service.read([1]))

    assert said == 'herocache; fwd=bypass; detail="not in use"'


def test_a_read_says_how_long_it_took_within_the_service(service: InProcess) -> None:
    for use_cache in (True, False):
        timing = service.read([1, 2], use_cache).headers["server-timing"]
        found = re.fullmatch(r"total;dur=(\d+\.\d{3})", timing)
        assert found, timing
        assert 0 < float(found[1]) < 10_000


def test_changes_and_errors_carry_neither(service: InProcess) -> None:
    for answer in (service.write(heroes(1)), service.delete([1]), service.read([0])):
        assert not {"cache-status", "server-timing"} & answer.headers.keys()


def test_a_line_a_request_is_logged_where_somebody_reads_it(
    service: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "herocache.requests"):
        service.write(heroes(2))
        service.read([1, 2, 99])
        service.read([1], use_cache=False)
        service.delete([2])
        service.invalidate()
        service.read(["ten"])

    lines = [r.getMessage() for r in caplog.records if r.name == "herocache.requests"]
    said = [re.sub(r"\d+\.\d\d ms$", "? ms", line) for line in lines]
    assert said == [
        "write heroes: 2; ? ms",
        "read heroes: 3 by id; cached: 2 of 3; ? ms",
        "read heroes: 1 by id; cached: not asked; ? ms",
        "delete heroes: 1; ? ms",
        "invalidate heroes: all; ? ms",
        "400 BadRequest: SQLS[0]: expected an integer, got 'ten'; ? ms",
    ]


def test_a_request_that_is_rejected_before_its_body_is_read_has_a_line_too(
    service: InProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "herocache.requests"):
        service.ask("GET", "/")
        service.dispatch({"requestContext": {"resourcePath": "/nowhere"}, "httpMethod": "GET"})
        service.ask("POST", "/", {"Origin": "http://evil.example"}, READ)
        service.health("?deep=1")
        service.health("?deep=yes")
        service.health()

    lines = [r.getMessage() for r in caplog.records if r.name == "herocache.requests"]
    assert [line.partition(": ")[0] for line in lines] == [
        "405 MethodNotAllowed",
        "404 NotFound",
        "403 Forbidden",
        "200 health",
        "400 BadRequest",
    ]


def test_no_line_a_request_is_logged_where_each_costs_money() -> None:
    asked = "import app, logging; print(app.entry_points.requests_log.isEnabledFor(logging.INFO))"

    assert run_python(asked, os.environ).strip() == "False"


def test_head_asks_for_the_health_without_its_words(service: InProcess) -> None:
    assert service.ask("HEAD", "/health").status == 200


@pytest.mark.parametrize(
    ("method", "path", "known"),
    [
        ("GET", "/", "POST, OPTIONS"),
        ("DELETE", "/", "POST, OPTIONS"),
        ("POST", "/health", "GET, HEAD, OPTIONS"),
        ("HEAD", "/health/deep", "GET, OPTIONS"),
    ],
)
def test_a_wrong_method_gets_the_shape_of_every_error(
    service: InProcess, method: str, path: str, known: str
) -> None:
    answer = service.ask(method, path)

    assert (answer.status, answer.error) == (405, "MethodNotAllowed")
    assert answer.message == f"{method!r}: {path} takes {known}"
    assert answer.headers["allow"] == known
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "payload",
    [
        {"REQUEST": "read", "SQLS": [1]},
        {},
        [1],
        None,
        "read",
        {"Records": []},
        {"requestContext": None},
        {"version": "2.0", "requestContext": {"http": {"method": "POST"}}},
    ],
    ids=str,
)
def test_the_apis_function_tells_a_payload_without_http_where_to_go(payload: object) -> None:
    answer = app(payload, None)

    assert answer["statusCode"] == 400
    assert answer["body"]["error"] == "BadRequest"
    assert "the function `storage`" in answer["body"]["message"]


def test_behind_an_integration_without_proxy_the_storage_function_says_what_http_would(
    service: InProcess,
) -> None:
    """API Gateway hands over the body as it is, and maps `statusCode` where it is told to."""
    for body in (READ, b'{"REQUEST": "read", "SQLS": [0]}'):
        over_http = service.send(body)

        answer = service.invoke(json.loads(body))

        assert answer == over_http.fields
        assert answer["statusCode"] == over_http.status


def test_a_path_that_the_api_does_not_have_is_not_found(service: InProcess) -> None:
    event = rest_event("{}")
    event["requestContext"]["resourcePath"] = "/rows"

    answer = service.dispatch(event)

    assert (answer.status, answer.error) == (404, "NotFound")


@pytest.mark.parametrize(
    ("event", "status", "words"),
    [
        ({"resourcePath": []}, 404, "[]: there is no such path; try POST /"),
        ({"resourcePath": {}}, 404, "{}: there is no such path; try POST /"),
        ({"resourcePath": None}, 404, "null: there is no such path; try POST /"),
        ({"resourcePath": "/"}, 405, "null: / takes "),
        ({"resourcePath": "/", "httpMethod": ["POST"]}, 405, "['POST']: / takes "),
        ({"resourcePath": "/", "httpMethod": "POST"}, 400, "body: "),
    ],
)
def test_an_event_with_nothing_but_a_context_is_answered_with_words(
    service: InProcess, event: object, status: int, words: str
) -> None:
    answer = service.dispatch({"requestContext": event})

    assert (answer.status, answer.message[: len(words)]) == (status, words)


def test_a_test_event_needs_a_path_a_method_and_a_body(service: InProcess) -> None:
    def context(path: str, method: str) -> dict[str, object]:
        return {"requestContext": {"resourcePath": path, "httpMethod": method}}

    assert service.dispatch({**context("/", "POST"), "body": READ.decode()}).missing == [1]
    assert service.dispatch(context("/health", "GET")).fields["status"] == "ok"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("body", {"REQUEST": "read", "SQLS": [1]}, "a string, as API Gateway sends it"),
        ("body", 5, "a string"),
        ("headers", [], "an object of strings"),
        ("headers", {"Origin": 5}, "an object of strings"),
        ("multiValueQueryStringParameters", "deep=1", "an object of lists"),
        ("multiValueQueryStringParameters", {"deep": 1}, "an object of lists"),
        ("pathParameters", "/", "an object"),
        ("stageVariables", 1, "an object"),
        ("isBase64Encoded", "no", "true or false"),
    ],
)
def test_an_event_with_a_field_of_another_kind_is_refused_by_its_name(
    service: InProcess, field: str, value: object, words: str
) -> None:
    answer = service.dispatch({**rest_event(READ.decode()), field: value})

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert answer.message.startswith(f"event: {field}: expected {words}")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"body": "{"},
        {"body": json.dumps({"REQUEST": "write", "SQLS": heroes(1)})},
        {"body": READ.hex(), "isBase64Encoded": True},
        {"headers": {"content-type": "text/plain", "accept": "image/png"}},
        {"headers": {"Content-Encoding": "br"}},
        {"headers": {"IDEMPOTENCY-KEY": "once"}},
        {"headers": {"Origin": "https://page.example"}},
        {"headers": {"origin": "https://page.example\nSet-Cookie: a=b"}},
    ],
)
def test_every_event_is_answered_as_by_chalices_own_dispatch(
    service: InProcess, configure: Configure, changes: dict[str, object]
) -> None:
    configure(CORS_ORIGINS="*")
    service.write(heroes(1))
    event = {**rest_event(READ.decode()), **changes}

    ours, chalices = [_settled(answer) for answer in (app(event, None), _dispatched(event))]

    assert ours == chalices


def test_a_route_of_reads_and_writes_has_nothing_that_only_chalices_dispatch_would_do() -> None:
    route = app.routes["/"]["POST"]

    assert route.content_types == ["*/*"]
    assert not route.view_args
    assert route.cors is None
    assert not list(app._get_middleware_handlers("http"))


def _dispatched(event: dict[str, object]) -> dict[str, Any]:
    answer: dict[str, Any] = Chalice.__call__(app, event, None)
    return answer


def _settled(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what no two answers share: the time they took, and the id of a new row."""
    headers = {name: value for name, value in answer["headers"].items() if name != "Server-Timing"}
    return {**answer, "headers": headers, "body": re.sub(r'"ids":.*', "", answer["body"])}


def test_a_gzipped_body_is_read(service: InProcess) -> None:
    service.write(heroes(1))
    for encoding in ("gzip", "GZIP", "x-gzip"):
        answer = service.ask("POST", "/", {"Content-Encoding": encoding}, gzip.compress(READ))
        assert len(answer.rows) == 1


def test_a_gzipped_body_of_several_members_is_read_whole(service: InProcess) -> None:
    """RFC 1952 section 2.2; `cat a.gz b.gz` makes one."""
    body = b"".join(gzip.compress(READ[i : i + 5]) for i in range(0, len(READ), 5))

    assert service.ask("POST", "/", {"Content-Encoding": "gzip"}, body).missing == [1]


def test_a_body_that_the_gateway_has_unpacked_is_read(service: InProcess) -> None:
    for encoding in ("gzip", "identity", ""):
        answer = service.ask("POST", "/", {"Content-Encoding": encoding}, READ)
        assert answer.missing == [1]


@pytest.mark.parametrize(
    ("body", "encoding", "status", "message"),
    [
        (READ, "br", 415, "Content-Encoding: 'br' is not read here; send the body as it is, or"),
        (READ, "gzip, gzip", 415, "Content-Encoding: 'gzip, gzip' is not read here"),
        (gzip.compress(READ)[:-9], "gzip", 400, "body: Content-Encoding says gzip, but it ends"),
        (b"\x1f\x8b" + b"x" * 50, "gzip", 400, "body: Content-Encoding says gzip, but it is dama"),
        (zlib.compress(READ), "gzip", 400, "body: not "),
        (gzip.compress(READ) + b"more", "gzip", 400, "body: Content-Encoding says gzip, but it is"),
        (gzip.compress(b" " * 20_000_000), "gzip", 413, "body: more than 6000000 bytes"),
        (gzip.compress(b" " * 4_000_000) * 2, "gzip", 413, "body: more than 6000000 bytes"),
    ],
    ids=["brotli", "twice", "cut", "damaged", "zlib", "garbage behind", "bomb", "two large ones"],
)
def test_another_encoding_or_a_damaged_body_is_refused_by_name(
    service: InProcess, witness: Witness, body: bytes, encoding: str, status: int, message: str
) -> None:
    answer = service.ask("POST", "/", {"Content-Encoding": encoding}, body)

    assert (answer.status, answer.message[: len(message)]) == (status, message)
    assert MAX_BODY_BYTES == 6_000_000
