"""Clients of the service, with the same few words: in process and over HTTP.

In process every request goes through Chalice's whole dispatch; `invoke` is the `storage` Lambda.
"""

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import requests
from chalice.test import Client

from app import app
from bench.api_gateway_event import rest_event
from chalicelib.tables import HEROES

ROOT = Path(__file__).parents[2]
HTTP_TIMEOUT_SECONDS = 30

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """`headers` by their lower-case names."""

    status: int
    content: bytes
    headers: Mapping[str, str]

    @cached_property
    def fields(self) -> dict[str, Any]:
        parsed = json.loads(self.content)
        assert isinstance(parsed, dict)
        return parsed

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def rows(self) -> list[Row]:
        """The rows of a read that went well."""
        assert self.status == self.fields["statusCode"] == 200, self.text[:500]
        body = self.fields["body"]
        assert isinstance(body, list)
        return body

    @property
    def missing(self) -> Any:
        return self.fields.get("missing")

    @property
    def ids(self) -> list[Any]:
        """The keys of a write that went well."""
        assert self.status == self.fields["statusCode"] == 200, self.text[:500]
        assert self.fields["body"] == "write success"
        ids = self.fields["ids"]
        assert isinstance(ids, list)
        return ids

    @property
    def deleted(self) -> list[Any]:
        """The keys that a delete which went well has found."""
        assert self.status == self.fields["statusCode"] == 200, self.text[:500]
        assert list(self.fields) == ["statusCode", "body", "deleted"]
        assert self.fields["body"] == "delete success"
        deleted = self.fields["deleted"]
        assert isinstance(deleted, list)
        return deleted

    @property
    def error(self) -> str:
        """The kind of a failure, which has the shape the contract gives it."""
        assert list(self.fields) == ["statusCode", "body"]
        assert self.status == self.fields["statusCode"]
        assert list(self.fields["body"]) == ["error", "message"]
        return str(self.fields["body"]["error"])

    @property
    def message(self) -> str:
        return str(self.fields["body"]["message"])


class Service(ABC):
    @abstractmethod
    def send(self, body: bytes, content_type: str | None = None) -> Answer:
        """POST these very bytes."""

    def post(self, payload: object) -> Answer:
        return self.send(json.dumps(payload).encode())

    def read(self, values: Sequence[object], use_cache: bool = True, **fields: object) -> Answer:
        """`fields` are TABLE, BY, LIMIT and AFTER."""
        request = {"REQUEST": "read", "SQLS": list(values), "USE_CACHE": str(use_cache)}
        return self.post({**request, **fields})

    def write(self, rows: Sequence[object], use_cache: bool = True, **fields: object) -> Answer:
        request = {"REQUEST": "write", "SQLS": list(rows), "USE_CACHE": str(use_cache)}
        return self.post({**request, **fields})

    def invalidate(self, keys: Sequence[object] = ("*",), **fields: str) -> Answer:
        return self.post({"REQUEST": "invalidate", "SQLS": list(keys), **fields})

    def delete(self, keys: Sequence[object], **fields: str) -> Answer:
        return self.post({"REQUEST": "delete", "SQLS": list(keys), **fields})


class InProcess(Service):
    """The app in this process, its settings read from this process's environment."""

    # A stage that .chalice/config.json does not declare: it would put its own settings over ours.
    _client = Client(app, stage_name="tests", project_dir=str(ROOT))

    def send(self, body: bytes, content_type: str | None = None) -> Answer:
        headers = {} if content_type is None else {"Content-Type": content_type}
        response = self._client.http.post("/", headers=headers, body=body)
        return Answer(response.status_code, response.body, _lower(response.headers))

    def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        """Any request."""
        response = self._client.http.request(method, path, headers=dict(headers or {}), body=body)
        return Answer(response.status_code, response.body, _lower(response.headers))

    def send_base64(self, encoded: str) -> Answer:
        """POST a body as API Gateway hands over one it takes for binary."""
        return self.dispatch({**rest_event(encoded), "isBase64Encoded": True})

    def dispatch(self, event: Mapping[str, Any]) -> Answer:
        """Hand over an event of API Gateway."""
        response = app(event, None)
        content = response["body"].encode()
        return Answer(response["statusCode"], content, _lower(response["headers"]))

    def invoke(self, payload: object) -> Any:
        """What the `storage` Lambda function returns."""
        return self._client.lambda_.invoke("storage", payload).payload

    def health(self, query: str = "") -> Answer:
        response = self._client.http.get(f"/health{query}")
        return Answer(response.status_code, response.body, _lower(response.headers))


class OverHttp(Service):
    """A service at a URL; a connection per request, safe for threads."""

    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, body: bytes, content_type: str | None = None) -> Answer:
        headers = {} if content_type is None else {"Content-Type": content_type}
        with requests.Session() as session:
            session.trust_env = False  # a proxy would be asked for 127.0.0.1 too
            response = session.post(
                self.url, data=body, headers=headers, timeout=HTTP_TIMEOUT_SECONDS
            )
        return Answer(response.status_code, response.content, _lower(response.headers))


def in_base64(payload: object) -> str:
    return base64.b64encode(json.dumps(payload).encode()).decode()


def hero(**columns: object) -> Row:
    """A hero as a client sends one, without an id."""
    return {"hero": "Nova", "power": "light", "name": "Ada", "xp": 10, "color": "red", **columns}


def heroes(count: int, **columns: object) -> list[Row]:
    """Each with a name and an xp of its own: 1, 2, 3 and so on."""
    return [hero(**{"name": f"Ada {i}", "xp": i, **columns}) for i in range(1, count + 1)]


def as_stored(key: object, row: Mapping[str, object]) -> Row:
    """The hero that a read gives for `row` once it was written under `key`."""
    whole = {**row, HEROES.key.name: key}
    return {column.name: whole[column.name] for column in HEROES.columns}


def _lower(headers: Mapping[str, Any]) -> dict[str, str]:
    return {name.lower(): str(value) for name, value in headers.items()}
