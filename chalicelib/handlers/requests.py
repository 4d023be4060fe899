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
from typing import TYPE_CHECKING, Any, TypeVar

from chalice.app import Request, Response

from chalicelib import __version__
from chalicelib.cache.entries import Cache
from chalicelib.config import CALLERS, READERS, Settings
from chalicelib.db.database import Database
from chalicelib.errors import (
    BadRequest,
    HerocacheError,
)
from chalicelib.handlers import contract
from chalicelib.handlers.origins import Headers, headers_for, preflight_headers_for
from chalicelib.ingest.events import uploads_in
from chalicelib.rows.service import Storage

if TYPE_CHECKING:
    from chalicelib.ingest.service import Ingest

log = logging.getLogger("herocache")
requests_log = logging.getLogger("herocache.requests")
requests_log.setLevel(
    logging.WARNING
)  # a line a request costs money in AWS: `chalice local` has it

Sent = TypeVar("Sent")

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
    from chalicelib.ingest.service import Ingest  # what it needs is no reader's business

    loads = Database(settings(), for_loads=True)
    return Ingest(
        loads,
        cache(),
        settings().max_refused_percent,
        settings().ingest_engine,
        settings().default_table,
        settings().ingest_columns,
    )


def forget_settings() -> None:
    """Read the environment again at the next request. For tests that change it."""
    for made in (settings, database, replica, cache, storage, file_ingest):
        made.cache_clear()


def post(request: Request) -> Response:
    """`POST /`: the body is JSON whatever its content type says."""
    return _http(request, _rows)


def preflight(request: Request) -> Response:
    """`OPTIONS`: whether a browser may send the request that a page of another host asks for."""
    try:
        headers = preflight_headers_for(request.headers, settings().cors_origins)
    except HerocacheError as error:
        return failed_request(error)
    return Response("", headers=headers, status_code=204)


def invoke(payload: object) -> dict[str, Any]:
    """The same contract without HTTP: the payload is the request, the dict is the answer."""
    reply, _ = _answered(_as_it_is, payload)
    answer: dict[str, Any] = json.loads(reply.text)
    return answer


def failed_invocation(error: HerocacheError) -> dict[str, Any]:
    """The answer to a payload that is not for the function which it was sent to."""
    answer: dict[str, Any] = json.loads(contract.reply_error(error).text)
    return answer


def failed_request(error: HerocacheError, **headers: str) -> Response:
    """The answer to a request that goes no further."""
    response = _response(contract.reply_error(error))
    response.headers.update(headers)
    return response


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
    return _http(request, _health)


def deep_health(request: Request) -> Response:
    """`GET /health/deep`: whether the app is up and reaches its servers."""
    return _http(request, _deep_health)


def _http(request: Request, answer: Callable[[Request], Response]) -> Response:
    """The answer, with what a page of another host needs to read it; only an error where that page
    may not use the service."""
    headers: Headers = {}
    try:
        if "origin" in set(request.headers):
            headers = headers_for(request.headers, settings().cors_origins)
        response = answer(request)
    except HerocacheError as error:
        response = failed_request(error)
    except Exception:
        log.exception("a request failed on a bug")
        response = _response(contract.reply_bug())
    if headers:
        response.headers.update(headers)
    return response


def _rows(request: Request) -> Response:
    return _response(*_answered(_payload, request))


def _health(request: Request) -> Response:
    if request.query_params is None or request.query_params.get("deep") != "1":
        return Response(_alive(), headers=dict(_JSON))
    if settings().api_auth != CALLERS[0]:
        raise BadRequest("deep: this stage asks callers who they are: use GET /health/deep")
    return _deep_health(request)


def _deep_health(_: Request) -> Response:
    report = _alive()
    report["database"] = _checked_database()
    report["cache"] = _checked(cache().probe) if settings().redis_url else {"ok": None}
    if not report["database"]["ok"]:
        report["status"] = "down"
    elif report["cache"]["ok"] is False:
        report["status"] = "degraded"
    status = 503 if report["status"] == "down" else 200
    return Response(report, headers=dict(_JSON), status_code=status)


def _alive() -> dict[str, Any]:
    return {"status": "ok", "version": __version__}


def _answered(payload: Callable[[Sent], object], sent: Sent) -> tuple[contract.Reply, float]:
    """The reply to the request in what was sent and the milliseconds it took; and a line about it
    in the log for requests, where somebody reads that."""
    started = time.perf_counter()
    asked = None
    try:
        said = payload(sent)  # before the settings: what is no JSON needs none
        chosen = settings()
        asked = contract.parse(said, chosen.default_table, chosen.read_by)
        reply = _done(asked)
    except HerocacheError as error:
        if error.status >= 500:
            log.error("%s: %s", error.kind, error)
        reply = contract.reply_error(error)
    except Exception:
        log.exception("a request failed on a bug")
        reply = contract.reply_bug()
    milliseconds = (time.perf_counter() - started) * 1000
    if requests_log.isEnabledFor(logging.INFO):
        requests_log.info("%s; %.2f ms", contract.in_words(asked, reply), milliseconds)
    return reply, milliseconds


def _done(request: contract.Request) -> contract.Reply:
    match request:
        case contract.Read(table, column, values, use_cache, page):
            rows = storage().read(table, column, values, use_cache, page)
            return contract.reply_rows(rows, request)
        case contract.Write(table, rows, use_cache, key):
            return contract.reply_written(storage().write(table, rows, use_cache, key))
        case contract.Delete(table, keys, key):
            return contract.reply_deleted(storage().delete(table, keys, key))
        case contract.Invalidate(table, keys):
            storage().invalidate(table, keys)
            return contract.reply_invalidated()


def _as_it_is(payload: object) -> object:
    return payload


def _payload(request: Request) -> object:
    """The body as the caller sent it; the header's idempotency key becomes a field of it."""
    names = set(request.headers)  # to look one up that is not there takes Chalice a microsecond
    payload = contract.decode(_body(request, contract.ENCODING_HEADER in names))
    if contract.IDEMPOTENCY_HEADER in names:
        return contract.with_idempotency_key(payload, request.headers[contract.IDEMPOTENCY_HEADER])
    return payload


def _body(request: Request, is_encoded: bool) -> bytes:
    try:
        body = request.raw_body
    except ValueError as error:
        raise BadRequest("body: not base64 although the event says so, or not UTF-8") from error
    body = body if isinstance(body, bytes) else body.encode()
    if is_encoded:
        return contract.unpacked(body, request.headers[contract.ENCODING_HEADER])
    return body


def _response(reply: contract.Reply, milliseconds: float = 0.0) -> Response:
    headers = dict(_JSON)
    if reply.cache_status:
        headers["Cache-Status"] = reply.cache_status
        headers["Server-Timing"] = f"total;dur={milliseconds:.3f}"
    if reply.retry_after_seconds is not None:
        headers["Retry-After"] = str(reply.retry_after_seconds)
    return Response(reply.text, headers=headers, status_code=reply.status)


def _checked_database() -> dict[str, Any]:
    """With `problems` where its tables differ from the declared ones in what can be lived with."""
    report = _checked(database().check)
    if not report["ok"]:
        return report
    try:
        problems = database().check_tables()
    except HerocacheError as error:
        return {"ok": False, "error": str(error)}
    return {**report, "problems": problems} if problems else report


def _checked(check: Callable[[], object]) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        check()
    except HerocacheError as error:
        return {"ok": False, "error": str(error)}
    return {"ok": True, "latency_ms": round((time.perf_counter() - start) * 1000, 3)}
