"""The service as the course's graders call it: JSON without a content type, answers checked."""

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import requests

from grader.cannot_grade import refusal, unreachable

# A little more than API Gateway waits for a function.
TIMEOUT_SECONDS = 35
SHOWN_CHARACTERS = 200

Hero = dict[str, Any]


class NoService(Exception):
    """There is nothing to grade at the URL. The text is one sentence to print."""


class Wrong(Exception):
    """An answer breaks the contract. The text says what was expected and what came."""


@dataclass(frozen=True)
class Way:
    """How a request selects rows: by a column, which it names in BY or leaves to the deployment's
    default."""

    by: str
    names_it: bool

    def __str__(self) -> str:
        return f"by {self.by}, " + (f'BY "{self.by}"' if self.names_it else "no BY")


@dataclass(frozen=True)
class Answer:
    """An answer and its times.

    `seconds`: the whole request. `service_seconds`: the time within the service, from
    Server-Timing. `cache_status`: the header (RFC 9211). The last two are None where the service
    does not send them.
    """

    status: int
    content: bytes
    fields: dict[str, Any]
    seconds: float
    service_seconds: float | None
    cache_status: str | None

    @property
    def is_hit(self) -> bool:
        """Whether the cache had every row, as Cache-Status says."""
        first, *_ = re.findall(r'(?:[^,"]|"[^"]*")+', self.cache_status or "") or [""]
        return "hit" in [parameter.strip() for parameter in first.split(";")[1:]]

    @property
    def rows(self) -> list[Hero]:
        """What looks like rows, in an answer that may be wrong."""
        body = self.fields.get("body")
        return [row for row in body if isinstance(row, dict)] if isinstance(body, list) else []

    def expect_success(self) -> None:
        for status in (self.status, self.fields.get("statusCode")):
            if status != 200:
                raise Wrong(f"expected 200, got HTTP {self.status} and {shown(self.fields)}")

    def expect_rows(self, heroes: Sequence[Hero], missing: Sequence[int] = ()) -> None:
        """Raises Wrong unless these rows came, in this order, with these types and columns, and
        `missing` is listed."""
        self.expect_success()
        body = self.fields.get("body")
        if not isinstance(body, list) or len(body) != len(heroes):
            count = f"{len(body)} rows" if isinstance(body, list) else shown(body)
            raise Wrong(f"body: expected {len(heroes)} rows, got {count}")
        for i, (row, hero) in enumerate(zip(body, heroes)):
            expect(f"body[{i}]", row, hero)
        expect("missing", self.fields.get("missing"), list(missing) or None)

    def expect_ids(self, count: int) -> list[int]:
        """The new ids of a write. Raises Wrong unless there is one for each row, and they rise."""
        self.expect_success()
        expect("body", self.fields.get("body"), "write success")
        ids = self.fields.get("ids")
        if not isinstance(ids, list) or [type(i) for i in ids] != [int] * count:
            raise Wrong(f"ids: expected {count} integers, got {shown(ids)}")
        if ids != sorted(set(ids)):
            raise Wrong(f"ids: expected each above the one before, got {shown(ids)}")
        return ids


class Service:
    """The service at `url`, called with an API key if one is given. Every request opens a
    connection, as in most graders; with `keeps_connection` all share one.

    Every method raises NoService when nothing there answers with JSON, or it does not accept us.
    """

    def __init__(self, url: str, key: str = "", *, keeps_connection: bool = False) -> None:
        self.url = with_scheme(url)
        self._headers = {"x-api-key": key} if key else {}
        self._session = requests.Session() if keeps_connection else None

    def post(self, **payload: Any) -> Answer:
        started = time.perf_counter()
        response = self._response(json.dumps(payload))
        seconds = time.perf_counter() - started
        if refused := refusal(response, bool(self._headers)):
            raise NoService(f"{self.url} cannot be graded: {refused}")
        try:
            fields = response.json()
        except requests.JSONDecodeError as error:
            kind = response.headers.get("Content-Type", "no content type")
            text = f"{self.url} did not answer with JSON: HTTP {response.status_code}, {kind}"
            raise NoService(text) from error
        if not isinstance(fields, dict):
            raise Wrong(f"expected a JSON object, got {shown(fields)}")
        return Answer(
            response.status_code,
            response.content,
            fields,
            seconds,
            _total_seconds(response.headers.get("Server-Timing", "")),
            response.headers.get("Cache-Status"),
        )

    def read(self, way: Way, values: Sequence[int | str], use_cache: bool) -> Answer:
        choice = {"BY": way.by} if way.names_it else {}
        return self.post(REQUEST="read", SQLS=list(values), USE_CACHE=str(use_cache), **choice)

    def write(self, rows: Sequence[Hero], use_cache: bool) -> Answer:
        return self.post(REQUEST="write", SQLS=list(rows), USE_CACHE=str(use_cache))

    def delete(self, ids: Sequence[int]) -> Answer:
        return self.post(REQUEST="delete", SQLS=list(ids))

    def _response(self, body: str) -> requests.Response:
        """Does not follow a redirect: requests would turn the POST into a GET."""
        post = self._session.post if self._session else requests.post
        try:
            return post(
                self.url,
                data=body,
                headers=self._headers,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            reason = unreachable(error, TIMEOUT_SECONDS)
            raise NoService(f"{self.url} cannot be reached: {reason}") from error
        except ValueError as error:
            raise NoService(f"{self.url} cannot be reached: {error}") from error


def with_scheme(url: str) -> str:
    """`localhost:8000` as a URL. Amazon's host names get https, because API Gateway takes no
    http."""
    if "://" in url:
        return url
    host = re.split(r"[/?]", url)[0]
    return f"https://{url}" if host.endswith(".amazonaws.com") else f"http://{url}"


def expect(what: str, actual: object, expected: object) -> None:
    """Raises Wrong unless the two are the same JSON text: 1, "1" and 1.0 differ, and so do orders
    of columns."""
    if json.dumps(actual) != json.dumps(expected):
        raise Wrong(f"{what}: expected {shown(expected)}, got {shown(actual)}")


def shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _total_seconds(server_timing: str) -> float | None:
    """The metric `total` of the header, in seconds; the header has milliseconds."""
    found = re.search(r"(?:^|,)\s*total\s*;[^,]*?\bdur=(\d+(?:\.\d+)?)", server_timing)
    return float(found[1]) / 1000 if found else None
