"""A service as the course grader sees it: JSON posted without a content type, answers checked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

TIMEOUT_SECONDS = 35
"""A little more than API Gateway waits for a function."""
SHOWN_CHARACTERS = 200

Hero = dict[str, Any]


class NoService(Exception):
    """There is nothing to grade at the URL. The text is the one sentence to print."""


class Wrong(Exception):
    """An answer breaks the contract. The text says what was expected and what came."""


@dataclass(frozen=True)
class Answer:
    status: int
    content: bytes
    fields: dict[str, Any]

    def expect_success(self) -> None:
        for status in (self.status, self.fields.get("statusCode")):
            if status != 200:
                raise Wrong(f"expected 200, got HTTP {self.status} and {shown(self.fields)}")

    def expect_rows(self, heroes: Sequence[Hero], missing: Sequence[int] = ()) -> None:
        """`heroes` in this order, with these types and columns, and `missing` told."""
        self.expect_success()
        body = self.fields.get("body")
        if not isinstance(body, list) or len(body) != len(heroes):
            count = f"{len(body)} rows" if isinstance(body, list) else shown(body)
            raise Wrong(f"body: expected {len(heroes)} rows, got {count}")
        for i, (row, hero) in enumerate(zip(body, heroes)):
            expect(f"body[{i}]", row, hero)
        expect("missing", self.fields.get("missing"), list(missing) or None)


class Service:
    """The service at `url`. Every method raises NoService when nothing there speaks JSON."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, **payload: Any) -> Answer:
        try:
            response = requests.post(self.url, data=json.dumps(payload), timeout=TIMEOUT_SECONDS)
            fields = response.json()
        except requests.JSONDecodeError as error:
            kind = response.headers.get("Content-Type", "no content type")
            text = f"{self.url} did not answer with JSON: HTTP {response.status_code}, {kind}"
            raise NoService(text) from error
        except (requests.RequestException, ValueError) as error:
            raise NoService(f"{self.url} cannot be reached: {_reason(error)}") from error
        if not isinstance(fields, dict):
            raise Wrong(f"expected a JSON object, got {shown(fields)}")
        return Answer(response.status_code, response.content, fields)

    def read(self, by: str, values: Sequence[int | str], use_cache: bool) -> Answer:
        """By id as version 1 of the course asks (no BY), else as version 2 does."""
        choice = {} if by == "id" else {"BY": by}
        return self.post(REQUEST="read", SQLS=list(values), USE_CACHE=str(use_cache), **choice)

    def write(self, rows: Sequence[Hero], use_cache: bool) -> list[int]:
        """The new ids, one per row and rising, or raises Wrong."""
        answer = self.post(REQUEST="write", SQLS=list(rows), USE_CACHE=str(use_cache))
        answer.expect_success()
        expect("body", answer.fields.get("body"), "write success")
        ids = answer.fields.get("ids")
        if not isinstance(ids, list) or [type(i) for i in ids] != [int] * len(rows):
            raise Wrong(f"ids: expected {len(rows)} integers, got {shown(ids)}")
        if ids != sorted(set(ids)):
            raise Wrong(f"ids: expected each above the one before, got {shown(ids)}")
        return ids


def expect(what: str, actual: object, expected: object) -> None:
    """Compared as JSON text, which tells 1 from "1" and from 1.0, and column orders apart."""
    if json.dumps(actual) != json.dumps(expected):
        raise Wrong(f"{what}: expected {shown(expected)}, got {shown(actual)}")


def shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _reason(error: Exception) -> str:
    """An error of requests in words, without the objects it is wrapped in."""
    match error:
        case requests.Timeout():
            return f"no answer within {TIMEOUT_SECONDS} s"
        case requests.exceptions.SSLError():
            return "its TLS or its certificate is not accepted"
        case requests.ConnectionError():
            return "nothing listens there, or the host is unknown"
        case _:
            return str(error)
