"""The wire's two ends: an HTTP body or a Lambda payload comes in, a reply goes out.

`app.py` calls in; `wire` checks and words, `storage` does the work. Errors become replies here and
nowhere else.
"""

import dataclasses
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from chalice.app import Request, Response

from chalicelib import __version__, wire
from chalicelib.cache import Cache
from chalicelib.config import CALLERS, READERS, Settings
from chalicelib.db import Database
from chalicelib.errors import BadRequest, CacheUnavailable, DatabaseUnavailable, HerocacheError
from chalicelib.storage import Storage
from chalicelib.uploads import uploads_in

if TYPE_CHECKING:
    from chalicelib.ingest import Ingest

log = logging.getLogger("herocache")

_JSON: dict[str, str | list[str]] = {"Content-Type": "application/json"}


@lru_cache(maxsize=1)
def settings() -> Settings:
    return Settings.from_environment(os.environ)


@lru_cache(maxsize=1)
def database() -> Database:
    return Database(settings())


@lru_cache(maxsize=1)
def replica() -> Database | None:
    """Only where the stage asks for it by name: a replica may not have the last writes. Nobody
    waits for it to wake up: the writer answers for it."""
    if settings().uncached_reads == READERS[0]:
        return None
    host = settings().db_reader_host
    there = dataclasses.replace(settings(), db_host=host, db_resume_seconds=0)
    return Database(there, is_replica=True)


@lru_cache(maxsize=1)
def cache() -> Cache:
    return Cache(settings())


@lru_cache(maxsize=1)
def storage() -> Storage:
    """Made by the first request, kept warm for the container's life."""
    return Storage(database(), cache(), replica())


@lru_cache(maxsize=1)
def file_ingest() -> "Ingest":
    from chalicelib.ingest import Ingest  # what it needs is no reader's business

    loads = Database(settings(), for_loads=True)
    return Ingest(loads, cache(), settings().max_refused_percent, settings().ingest_engine)


def forget_settings() -> None:
    """Read the environment again at the next request. For tests that change it."""
    for made in (settings, database, replica, cache, storage, file_ingest):
        made.cache_clear()


def post(request: Request) -> Response:
    """`POST /`: the body is JSON whatever its content type says."""
    return _response(_answered(lambda: _payload(request)))


def invoke(payload: object) -> dict[str, Any]:
    """The same contract without HTTP: the payload is the request, the dict is the answer."""
    answer: dict[str, Any] = json.loads(_answered(lambda: payload).text)
    return answer


def ingest(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """An S3 event: what became of each object in it. Raises where one may go better next time, once
    all were tried; those that are dealt with cost nothing then."""
    summaries, failures = [], []
    for upload in uploads_in(event):
        try:
            summaries.append(file_ingest().load(upload))
        except HerocacheError as error:
            log.error("%s: %s: %s", upload.key, error.kind, error)
            failures.append(error)
    if failures:
        raise failures[0]
    return summaries


def health(request: Request) -> Response:
    """`GET /health`: whether the app is up; nobody is asked who they are. `?deep=1`: as
    `deep_health`, but on stages that are open to everybody only: it works the database."""
    if request.query_params is None or request.query_params.get("deep") != "1":
        return Response(_alive(), headers=_JSON)
    try:
        if settings().api_auth != CALLERS[0]:
            raise BadRequest("deep: this stage asks callers who they are: use GET /health/deep")
    except HerocacheError as error:
        return _response(wire.reply_error(error))
    return deep_health()


def deep_health() -> Response:
    """`GET /health/deep`: whether the app is up and reaches its servers."""
    report = _alive()
    try:
        report["database"] = _checked(database().check)
        report["cache"] = _checked(cache().link.probe) if settings().redis_url else {"ok": None}
    except HerocacheError as error:
        return _response(wire.reply_error(error))
    if not report["database"]["ok"]:
        report["status"] = "down"
    elif report["cache"]["ok"] is False:
        report["status"] = "degraded"
    status = 503 if report["status"] == "down" else 200
    return Response(report, headers=_JSON, status_code=status)


def _alive() -> dict[str, Any]:
    return {"status": "ok", "version": __version__}


def _answered(payload: Callable[[], object]) -> wire.Reply:
    try:
        return _done(payload())
    except HerocacheError as error:
        if error.status >= 500:
            log.error("%s: %s", error.kind, error)
        return wire.reply_error(error)
    except Exception:
        log.exception("a request failed on a bug")
        return wire.reply_bug()


def _done(payload: object) -> wire.Reply:
    request = wire.parse(payload, settings().default_table, settings().read_by)
    match request:
        case wire.Read(table, column, values, use_cache):
            return wire.reply_rows(storage().read(table, column, values, use_cache))
        case wire.Write(table, rows, use_cache, key):
            return wire.reply_written(storage().write(table, rows, use_cache, key))
        case wire.Delete(table, keys, key):
            return wire.reply_deleted(storage().delete(table, keys, key))


def _payload(request: Request) -> object:
    """The body as the caller sent it; the header's idempotency key becomes a field of it."""
    payload = wire.decode(_body(request))
    if wire.IDEMPOTENCY_HEADER in request.headers:
        return wire.with_idempotency_key(payload, request.headers[wire.IDEMPOTENCY_HEADER])
    return payload


def _body(request: Request) -> bytes:
    try:
        body = request.raw_body
    except ValueError as error:
        raise BadRequest("body: not base64 although the event says so, or not UTF-8") from error
    return body if isinstance(body, bytes) else body.encode()


def _response(reply: wire.Reply) -> Response:
    headers = dict(_JSON)
    if reply.retry_after_seconds is not None:
        headers["Retry-After"] = str(reply.retry_after_seconds)
    return Response(reply.text, headers=headers, status_code=reply.status)


def _checked(check: Callable[[], object]) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        check()
    except (DatabaseUnavailable, CacheUnavailable) as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "latency_ms": round((time.perf_counter() - start) * 1000, 3)}
