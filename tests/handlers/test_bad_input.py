"""Every bad input is rejected with words that name the place, and changes nothing."""

import json

import pytest

from tests.support.bad_inputs import BAD_INPUTS, Bad
from tests.support.client import InProcess, OverHttp, hero, heroes
from tests.support.leaks import assert_tells_nothing_internal
from tests.support.witness import Witness


@pytest.fixture
def service(service: InProcess) -> InProcess:
    """With heroes 1 to 3, in the cache too."""
    service.write([{"id": row["xp"], **row} for row in heroes(3)])
    service.read([1, 2, 3], BY="xp")
    return service


each_bad_input = pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)


@each_bad_input
def test_bad_input_is_refused_and_changes_nothing(
    service: InProcess, witness: Witness, bad: Bad
) -> None:
    before = witness.state()

    answer = service.send(body_of(bad))

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert bad.message in answer.message
    assert len(answer.message) < 400, "an error names the place, it does not repeat the request"
    assert witness.state() == before
    assert_tells_nothing_internal(answer)
    if not isinstance(bad.request, bytes | None):  # Chalice's test client makes {} of None
        assert service.invoke(bad.request) == answer.fields


def test_bad_input_is_refused_over_http_too(service: InProcess, server_url: str) -> None:
    over_http = OverHttp(server_url)
    for bad in BAD_INPUTS[::7]:
        assert over_http.send(body_of(bad)).fields == service.send(body_of(bad)).fields


def test_no_depth_of_nesting_is_a_bug_of_ours(service: InProcess) -> None:
    """Between what the parser takes and what it rejects too."""
    for depth in (*range(10, 900, 80), *range(900, 1020)):
        nested = b"[" * depth + b"]" * depth
        as_object = b'{"a":' * depth + b"1" + b"}" * depth
        for body in (
            nested,
            b'{"REQUEST": "read", "SQLS": [%s]}' % nested,
            b'{"REQUEST": "read", "SQLS": [%s]}' % as_object,
            b'{"REQUEST": "write", "SQLS": [{"hero": %s}]}' % nested,
            b'{"REQUEST": %s, "SQLS": []}' % nested,
        ):
            assert service.send(body).status == 400, f"{depth} deep: {body[:60]!r}"


def test_every_way_to_truncate_a_request_is_refused(service: InProcess, witness: Witness) -> None:
    body = json.dumps({"REQUEST": "write", "SQLS": [hero(name="Zoë"), hero()]}, ensure_ascii=False)
    whole = body.encode()
    before = witness.state()

    for length in range(len(whole)):
        assert service.send(whole[:length]).status == 400, whole[:length]

    assert witness.state() == before


def test_a_good_request_works_after_every_bad_one(service: InProcess) -> None:
    for bad in BAD_INPUTS:
        service.send(body_of(bad))

    assert len(service.read([1, 2, 3]).rows) == 3
    assert len(service.write(heroes(2)).ids) == 2


def body_of(bad: Bad) -> bytes:
    return bad.request if isinstance(bad.request, bytes) else json.dumps(bad.request).encode()
