"""Idempotent writes: with a key a retry gets the first answer and changes nothing."""

import json
from typing import Any

import pytest
import requests

from bench.api_gateway_event import rest_event
from chalicelib.rows import idempotency
from tests.support.client import Answer, InProcess, Row, hero
from tests.support.raw_http import Connection, post
from tests.support.retries import (
    BEFORE,
    DELETE,
    INSERT,
    REPLACE,
    REQUESTS,
    claimed,
    each_request,
    with_field,
    with_header,
)
from tests.support.witness import Witness


@pytest.fixture
def service(service: InProcess) -> InProcess:
    """With heroes 1 and 2 in the table and in the cache."""
    service.write(BEFORE)
    return service


@pytest.mark.both_engines
@each_request
@pytest.mark.parametrize("send", [with_header, with_field])
def test_a_retry_gets_the_first_answer_and_changes_nothing(
    service: InProcess, witness: Witness, send: Any, request_name: str
) -> None:
    request = REQUESTS[request_name]
    first = send(service, request, "order-1")
    assert first.status == 200
    before = witness.database_state()

    for _ in range(3):
        assert send(service, request, "order-1").content == first.content
        assert witness.database_state() == before
    assert claimed(witness) == ["order-1"]


@pytest.mark.both_engines
@pytest.mark.parametrize("is_delete", [False, True])
def test_the_longest_keys_are_recorded_for_a_retry(service: InProcess, is_delete: bool) -> None:
    """A request to the RDS Data API has at most 4 MB."""
    keys = [f"{i:04}" + 251 * "🌠" for i in range(1_000)]
    rows = [{"EmpId": key, "EmpName": ""} for key in keys]
    request: Row = {"REQUEST": "write", "SQLS": rows, "TABLE": "employees"}
    if is_delete:
        service.write(rows, TABLE="employees")
        request |= {"REQUEST": "delete", "SQLS": keys}

    first = with_header(service, request, "order-1")

    assert (first.deleted if is_delete else first.ids) == keys
    assert with_header(service, request, "order-1").content == first.content


@pytest.mark.both_engines
def test_a_retry_gets_an_answer_of_any_length(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that the RDS Data API gives has at most 64 KB."""
    rows = [{"EmpId": f"{i:0250}", "EmpName": "🌠"} for i in range(150)]
    request = {"REQUEST": "write", "SQLS": rows, "TABLE": "employees"}
    first = with_header(service, request, "order-1")
    assert first.status == 200
    [(length,)] = witness.query("SELECT LENGTH(answer) FROM idempotency")
    assert length > 1 << 16

    for size in (idempotency.PIECE_CHARACTERS, length // 3, length // 2 + 1):
        monkeypatch.setattr(idempotency, "PIECE_CHARACTERS", size)
        assert with_header(service, request, "order-1").content == first.content


@pytest.mark.parametrize("behind", [0, 1])
def test_the_last_piece_of_an_answer_may_be_whole_or_one_character(
    service: InProcess, witness: Witness, monkeypatch: pytest.MonkeyPatch, behind: int
) -> None:
    first = with_header(service, INSERT, "order-1")
    [(length,)] = witness.query("SELECT LENGTH(answer) FROM idempotency")

    monkeypatch.setattr(idempotency, "PIECE_CHARACTERS", length - behind)
    assert with_header(service, INSERT, "order-1").content == first.content


def test_header_field_and_payload_of_lambda_name_the_same_key(
    service: InProcess, witness: Witness
) -> None:
    ids = with_header(service, INSERT, "order-1", "IDEMPOTENCY-key").ids

    assert with_field(service, INSERT, "order-1").ids == ids
    assert with_header(service, {**INSERT, "IDEMPOTENCY_KEY": "order-1"}, "order-1").ids == ids
    payload = {**INSERT, "IDEMPOTENCY_KEY": "order-1"}
    assert service.invoke(payload) == {"statusCode": 200, "body": "write success", "ids": ids}
    assert witness.count() == 4


def test_the_header_works_over_http(server_url: str, witness: Witness) -> None:
    with requests.Session() as session:
        session.trust_env = False
        answers = [
            session.post(
                server_url, json=INSERT, headers={"Idempotency-Key": "order-1"}, timeout=30
            ).json()
            for _ in range(2)
        ]

    assert answers[0] == answers[1]
    assert len(answers[0]["ids"]) == witness.count() == 2


def test_a_retry_does_not_undo_what_others_wrote_meanwhile(service: InProcess) -> None:
    with_header(service, REPLACE, "order-1")
    newer = {"id": 1, **hero(name="newer")}
    service.write([newer])
    assert with_header(service, REPLACE, "order-1").ids == [1]
    for use_cache in (True, True, False):
        assert service.read([1], use_cache).rows == [newer]

    assert with_header(service, DELETE, "order-2").deleted == [2, 1]
    service.write([newer])
    assert with_header(service, DELETE, "order-2").deleted == [2, 1]
    for use_cache in (True, True, False):
        assert service.read([1], use_cache).rows == [newer]


@pytest.mark.both_engines
def test_another_key_is_another_write(service: InProcess, witness: Witness) -> None:
    keys = ["a", "A", "ä", "a\u0308", "日本", "😀" * 255, "'; --", "%s"]
    answers = [with_field(service, INSERT, key).ids for key in keys]

    assert len({id for ids in answers for id in ids}) == 2 * len(keys)
    assert witness.count() == 2 + 2 * len(keys)
    for key, ids in zip(keys, answers):
        assert with_field(service, INSERT, key).ids == ids


def test_writes_without_a_key_are_never_taken_for_retries(
    service: InProcess, witness: Witness
) -> None:
    assert service.post(INSERT).ids != service.post(INSERT).ids
    assert claimed(witness) == []


OTHERS: dict[str, Row] = {
    "other rows": {**INSERT, "SQLS": [hero(), hero(xp=12)]},
    "fewer rows": {**INSERT, "SQLS": [hero()]},
    "rows in another order": {**INSERT, "SQLS": [hero(xp=11), hero()]},
    "rows with keys": {**INSERT, "SQLS": [{"id": 8, **hero()}, {"id": 9, **hero(xp=11)}]},
    "a delete": DELETE,
    "another table": {
        "REQUEST": "write",
        "TABLE": "employees",
        "SQLS": [{"EmpId": "e", "EmpName": "E"}],
    },
}


@pytest.mark.parametrize("other", OTHERS)
def test_the_same_key_with_another_request_is_a_conflict(
    service: InProcess, witness: Witness, other: str
) -> None:
    ids = with_header(service, INSERT, "order-1").ids
    before = witness.state()

    answer = with_header(service, OTHERS[other], "order-1")

    assert (answer.status, answer.error) == (409, "Conflict")
    assert "Idempotency-Key" in answer.message
    assert witness.state() == before
    assert with_header(service, INSERT, "order-1").ids == ids


def test_the_same_ids_of_another_table_are_another_request(service: InProcess) -> None:
    assert with_header(service, DELETE, "order-1").status == 200

    answer = with_header(service, {**DELETE, "TABLE": "products"}, "order-1")

    assert (answer.status, answer.error) == (409, "Conflict")


def test_the_same_rows_in_other_json_are_the_same_request(
    service: InProcess, witness: Witness
) -> None:
    first = with_header(service, INSERT, "order-1").ids
    rows = [dict(reversed(hero(xp=xp).items())) for xp in ("10", "11")]

    again = {"SQLS": rows, "TABLE": "heroes", "USE_CACHE": "False", "REQUEST": "write"}

    assert with_field(service, again, "order-1").ids == first
    assert witness.count() == 4


@pytest.mark.both_engines
def test_a_refused_write_leaves_no_claim(service: InProcess, witness: Witness) -> None:
    """By its form, or in the middle of its transaction for want of a free id."""
    rejected = with_header(service, {**INSERT, "SQLS": [hero(xp="many")]}, "order-1")
    assert (rejected.status, rejected.error) == (400, "BadRequest")
    assert claimed(witness) == []
    highest = (2**32 - 1, "Nova", "light", "Ada", 1, "red")
    witness.query("INSERT INTO heroes VALUES %s", [highest])
    rejected = with_header(service, INSERT, "order-1")
    assert (rejected.status, rejected.error) == (400, "BadRequest")
    assert claimed(witness) == []

    assert with_header(service, DELETE, "order-1").deleted == [2, 1]


@pytest.mark.parametrize(
    "key",
    ["k" * 256, "", " ", " padded", "padded\t", "a\0b", None, 5, True, ["k"], {"k": 1}],
    ids=repr,
)
def test_a_malformed_key_is_refused(service: InProcess, witness: Witness, key: object) -> None:
    before = witness.state()
    for request in REQUESTS.values():
        answers = [with_field(service, request, key)]
        if isinstance(key, str):
            answers.append(with_header(service, request, key))
        for answer in answers:
            assert (answer.status, answer.error) == (400, "BadRequest")
            assert "Idempotency-Key" in answer.message
    assert witness.state() == before


def test_two_different_keys_in_one_request_are_refused(
    service: InProcess, witness: Witness
) -> None:
    answer = with_header(service, {**INSERT, "IDEMPOTENCY_KEY": "one"}, "another")

    assert (answer.status, answer.error) == (400, "BadRequest")
    assert "IDEMPOTENCY_KEY" in answer.message
    assert witness.count() == 2


def test_two_headers_with_different_keys_are_refused(server_url: str, witness: Witness) -> None:
    """A read ignores them, as it ignores one."""
    for keys, sent, status in (
        (("one", "another"), INSERT, 400),
        (("one", "one"), INSERT, 200),
        (("one", "another"), {"REQUEST": "read", "SQLS": [1]}, 200),
    ):
        body = json.dumps(sent).encode()
        headers = [f"Idempotency-Key: {key}" for key in keys]
        with Connection(server_url) as connection:
            answer = connection.ask(post(*headers, f"Content-Length: {len(body)}", body=body))
        assert answer.status == status, answer.text
        assert ("Idempotency-Key: two headers" in answer.text) == (status == 400)
    assert witness.count() == 2


def test_a_read_refuses_the_field_and_ignores_the_header(
    service: InProcess, witness: Witness
) -> None:
    read = {"REQUEST": "read", "SQLS": [1]}

    rejected = with_field(service, read, "order-1")
    assert (rejected.status, rejected.error) == (400, "BadRequest")
    assert "IDEMPOTENCY_KEY" in rejected.message
    for key in ("order-1", "k" * 256, ""):
        assert with_header(service, read, key).rows == [{"id": 1, **hero()}]
    assert claimed(witness) == []


# --- callers ------------------------------------------------------------------------------------

ROLE = "AROAEXAMPLEEXAMPLE000"
# What API Gateway says of a caller whom it has checked.
CALLERS: dict[str, dict[str, str]] = {
    "an IAM user": {"caller": "AIDAEXAMPLEEXAMPLE000", "accountId": "123456789012"},
    "another IAM user": {"caller": "AIDAEXAMPLEEXAMPLE001", "accountId": "123456789012"},
    "an API key": {"apiKeyId": "abcdefghij", "apiKey": "value-1"},
    "another API key": {"apiKeyId": "abcdefghik", "apiKey": "value-2"},
    "a role": {"caller": f"{ROLE}:session-1"},
    "a Cognito identity": {"caller": f"{ROLE}:Cognito", "cognitoIdentityId": "eu-west-1:1"},
    "another Cognito identity": {"caller": f"{ROLE}:Cognito", "cognitoIdentityId": "eu-west-1:2"},
    "nobody": {},
}


def sent_by(
    service: InProcess, identity: dict[str, str], request: Row, key: str = "order-1"
) -> Answer:
    event = rest_event(json.dumps({**request, "IDEMPOTENCY_KEY": key}))
    event["requestContext"]["identity"] |= identity
    return service.dispatch(event)


def test_no_caller_gets_the_answer_of_another(service: InProcess, witness: Witness) -> None:
    """Who guesses a key, or uses it first, learns nothing and stops nobody's write."""
    ids = {name: sent_by(service, identity, INSERT).ids for name, identity in CALLERS.items()}

    assert len({tuple(each) for each in ids.values()}) == len(CALLERS)
    assert witness.count() == 2 + 2 * len(CALLERS)
    for name, identity in CALLERS.items():
        assert sent_by(service, identity, INSERT).ids == ids[name], "a retry of its own"


def test_no_caller_learns_that_another_has_used_a_key(service: InProcess) -> None:
    assert sent_by(service, CALLERS["an API key"], INSERT).status == 200

    other = sent_by(service, CALLERS["another API key"], DELETE)
    assert (other.status, other.deleted) == (200, [2, 1]), "no Conflict"
    own = sent_by(service, CALLERS["an API key"], DELETE)
    assert (own.status, own.error) == (409, "Conflict")


def test_a_retry_from_another_session_of_a_role_is_a_retry(service: InProcess) -> None:
    ids = [
        sent_by(service, {"caller": f"{ROLE}:{session}"}, INSERT).ids for session in ("1", "2", "1")
    ]
    assert ids == [ids[0]] * 3


def test_the_recorded_key_of_a_caller_cannot_be_sent(service: InProcess, witness: Witness) -> None:
    """It could be read in the database, or be computed from a caller's id and key."""
    sent_by(service, CALLERS["an IAM user"], INSERT)
    [recorded] = claimed(witness)

    assert with_field(service, INSERT, recorded).status == 400
    assert with_header(service, INSERT, recorded).status == 400
    assert with_field(service, INSERT, recorded.strip()).status == 200, "an ordinary key"
    assert len(claimed(witness)) == 2


@pytest.mark.parametrize("identity", [None, "a", 5, []], ids=repr)
def test_an_event_with_a_malformed_identity_is_one_of_nobody(
    service: InProcess, identity: object
) -> None:
    event = rest_event(json.dumps({**INSERT, "IDEMPOTENCY_KEY": "order-1"}))
    event["requestContext"]["identity"] = identity
    assert service.dispatch(event).ids == with_field(service, INSERT, "order-1").ids
