"""A handler for each route and each Lambda event: takes the request, calls the use case, answers.

`json_body` reads requests, `contract` validates them, `replies` makes answers, and `services` holds
the use cases. This is the only module that turns an error into an answer.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from chalice.app import Request, Response

from chalicelib import services
from chalicelib.config import RANGES_BUCKET, UPLOAD_BUCKET, ApiAuth
from chalicelib.error_text import shown
from chalicelib.errors import BadRequest, Forbidden, HerocacheError, one_line
from chalicelib.handlers import contract, cors, employees, health, json_body, replies, validation
from chalicelib.handlers.callers import caller_in
from chalicelib.ingest import Upload, uploads_in

Result = TypeVar("Result")

log = logging.getLogger("herocache")
# One line for each request. `chalice local` shows them. In AWS they are off, because logs cost
# money.
requests_log = logging.getLogger("herocache.requests")
requests_log.setLevel(logging.WARNING)

_JSON: cors.Headers = {"Content-Type": "application/json"}


# --- HTTP ---------------------------------------------------------------------------------------


def post(request: Request) -> Response:
    """`POST /`: reads and changes rows. The body is JSON, whatever its content type says."""
    return _http(request, _post)


def post_read(request: Request) -> Response:
    """`POST /read`: the same, but it rejects every change, so that IAM can allow reads alone."""
    return _http(request, _post_read)


def get_health(request: Request) -> Response:
    """`GET /health`, open to everybody: whether the service runs. It is not logged, because load
    balancers ask it all the time. With `?deep=1` the same as `get_deep_health`, but only on a stage
    without authentication, because that check uses the database."""
    return _http(request, _get_health)


def get_deep_health(request: Request) -> Response:
    """`GET /health/deep`: whether the service reaches its servers, too."""
    return _http(request, _get_deep_health)


def preflight(request: Request) -> Response:
    """`OPTIONS`: whether a browser may send a request for a page of another host."""
    try:
        allowed = services.container().settings.cors_origins
        headers = cors.preflight_headers_for(request.headers, allowed)
    except HerocacheError as error:
        return error_response(error)
    return Response("", headers=headers, status_code=204)


def error_response(error: HerocacheError, **headers: str) -> Response:
    """The answer to a request that ends with this error before its use case is called."""
    reply = replies.of_error(error)
    if requests_log.isEnabledFor(logging.INFO):
        _log_request(replies.log_line(None, reply))
    response = _response(reply)
    response.headers.update(headers)
    return response


def _http(request: Request, answer: Callable[[Request], Response]) -> Response:
    """The answer to `request`, with the headers that let a page of another host read it. The answer
    is an error where that page may not use the service."""
    headers: cors.Headers = {}
    try:
        if "origin" in set(request.headers):
            allowed = services.container().settings.cors_origins
            headers = cors.headers_for(request.headers, allowed)
        response = answer(request)
    except HerocacheError as error:
        response = error_response(error)
    except Exception:
        log.exception("a request failed on a bug")
        response = _response(replies.of_bug())
    if headers:
        response.headers.update(headers)
    return response


def _post(request: Request, reads_only: bool = False) -> Response:
    caller = caller_in(request.context or {})
    return _response(*_answered(lambda: _payload(request), caller, reads_only))


def _post_read(request: Request) -> Response:
    return _post(request, reads_only=True)


def _get_health(request: Request) -> Response:
    parameters = request.query_params
    deep = parameters.get("deep", "0") if parameters else "0"
    if deep not in ("0", "1"):
        raise BadRequest(f"deep: expected 1, or 0 as without it, got {shown(deep)}")
    if deep == "0":
        return Response(health.alive(), headers=dict(_JSON))
    if services.container().settings.api_auth is not ApiAuth.NONE:
        raise BadRequest("deep: this stage asks callers who they are: use GET /health/deep")
    return _get_deep_health(request)


def _get_deep_health(_: Request) -> Response:
    report, status = health.deep()
    _log_request(f"{status} health: {report['status']}")
    return Response(report, headers=dict(_JSON), status_code=status)


def _payload(request: Request) -> object:
    """The JSON value in the body. An idempotency key in the headers becomes a field of it."""
    names = set(request.headers)  # in a set, because Chalice is slow to look up an absent header
    payload = json_body.decode(_body(request, json_body.ENCODING_HEADER in names))
    if contract.IDEMPOTENCY_HEADER in names:
        return validation.with_idempotency_key(payload, _idempotency_keys(request))
    return payload


def _idempotency_keys(request: Request) -> list[object]:
    """What the header has, each time that it was sent; the first one perhaps twice."""
    headers = request.to_original_event().get("multiValueHeaders")
    again = [
        key
        for name, keys in (headers.items() if isinstance(headers, dict) else ())
        if name.lower() == contract.IDEMPOTENCY_HEADER and isinstance(keys, list)
        for key in keys
    ]
    return [request.headers[contract.IDEMPOTENCY_HEADER], *again]


def _body(request: Request, is_encoded: bool) -> bytes:
    try:
        body = request.raw_body
    except ValueError as error:
        raise BadRequest("body: not base64 although the event says so, or not UTF-8") from error
    body = body if isinstance(body, bytes) else body.encode()
    if is_encoded:
        return json_body.unpacked(body, request.headers[json_body.ENCODING_HEADER])
    return body


def _response(reply: replies.Reply, milliseconds: float = 0.0) -> Response:
    headers = dict(_JSON)
    if reply.cache_status:
        headers["Cache-Status"] = reply.cache_status
        headers["Server-Timing"] = f"total;dur={milliseconds:.3f}"
    if reply.retry_after_seconds is not None:
        headers["Retry-After"] = str(reply.retry_after_seconds)
    return Response(reply.text, headers=headers, status_code=reply.status)


# --- Lambda -------------------------------------------------------------------------------------


def invoke(payload: object) -> dict[str, Any]:
    """The same contract without HTTP: the payload is the request, the dict is the answer."""
    reply, _ = _answered(lambda: payload)
    answer: dict[str, Any] = json.loads(reply.text)
    return answer


def ingest(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Load the objects in an S3 event. Tries all objects, then raises the first error, so that
    Lambda delivers the event again; an object that was loaded is not loaded again. Without an error
    it returns a summary of each object."""

    def load(upload: Upload) -> dict[str, Any]:
        container = services.container()
        settings = container.settings
        _reject_other_bucket(upload.bucket, settings.upload_bucket, UPLOAD_BUCKET)
        return container.ingest.load(replace(upload, bucket_owner=settings.bucket_owner))

    return _all_tried([(one_line(each.key), partial(load, each)) for each in uploads_in(event)])


def _reject_other_bucket(name: str, ours: str, setting: str) -> None:
    """Raises BadRequest where the event is of another bucket than the one in the setting: whoever
    may put objects there is not asked who they are. Nothing is read from it, or written to it."""
    if ours and name != ours:
        raise BadRequest(f"event: the bucket {shown(name)} is not the one in {setting}")


def sync(event: object) -> dict[str, Any]:
    """Bring watched rows and their public keys in step, and return the record of the run. An event
    of the schedule names no table; one may name a table, and then that is looked at whatever the
    notes say. Whatever goes wrong is raised, so that Lambda calls it again."""
    try:
        if not isinstance(event, dict):
            raise BadRequest("event: expected an object")
        record = services.container().sync.run(event.get("table"))
    except HerocacheError as error:
        log.error("sync: %s: %s", error.kind, error)
        raise
    log.info("sync: %s", json.dumps(record))
    return record


def sync_range(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Work off the ranges in an S3 event, which a run of the sync has handed out, and return what
    was done of each. As `ingest`, it tries all of them, then raises the first error."""
    from chalicelib.sync import ranges_in

    def work_off(bucket: str, run: int, number: int) -> dict[str, Any]:
        container = services.container()
        _reject_other_bucket(bucket, container.settings.ranges_bucket, RANGES_BUCKET)
        return container.range_worker.work_off(run, number)

    records = _all_tried(
        [
            (f"range {number} of run {run}", partial(work_off, bucket, run, number))
            for bucket, run, number in ranges_in(event)
        ]
    )
    log.info("sync_range: %s", json.dumps(records))
    return records


def _all_tried(tasks: Sequence[tuple[str, Callable[[], Result]]]) -> list[Result]:
    """Does all tasks, each with the name that the log gives it, and returns what they return.
    Raises the first error once all were tried."""
    results: list[Result] = []
    failures: list[Exception] = []
    for name, task in tasks:
        try:
            results.append(task())
        except HerocacheError as error:
            log.error("%s: %s: %s", name, error.kind, error)
            failures.append(error)
        except Exception as error:
            log.exception("%s: it failed on a bug", name)
            failures.append(error)
    if failures:
        raise failures[0]
    return results


def add_employees(event: object) -> object:
    """Adds the employees of the event, and returns all of them. Whatever goes wrong is raised: the
    invocation fails with its name and its words."""
    try:
        return employees.add(event)
    except HerocacheError as error:
        log.error("employees: %s: %s", error.kind, error)
        raise


def failed_invocation(error: HerocacheError) -> dict[str, Any]:
    """The answer to a payload that this function does not take."""
    answer: dict[str, Any] = json.loads(replies.of_error(error).text)
    return answer


# --- both ---------------------------------------------------------------------------------------


def _answered(
    payload: Callable[[], object], caller: str = "", reads_only: bool = False
) -> tuple[replies.Reply, float]:
    """The reply to the request that `payload` returns, and the milliseconds it took. `caller`:
    who sends it; empty where nobody is checked. `reads_only`: a change is Forbidden. Writes a line
    to the log of requests where that is on."""
    started = time.perf_counter()
    request = None
    try:
        asked = payload()  # before the settings, which are not needed to reject a malformed body
        container = services.container()
        settings = container.settings
        request = validation.parse(asked, settings.default_table, settings.read_by, caller)
        if reads_only or caller in settings.api_readers:
            _reject_change(request)
        reply = _done(request, container)
    except HerocacheError as error:
        if error.status >= 500:
            log.error("%s: %s%s", error.kind, error, _by(caller))
        reply = replies.of_error(error)
    except Exception:
        log.exception("a request failed on a bug")
        reply = replies.of_bug()
    milliseconds = (time.perf_counter() - started) * 1000
    if requests_log.isEnabledFor(logging.INFO):
        _log_request(f"{replies.log_line(request, reply)}; {milliseconds:.2f} ms{_by(caller)}")
    return reply, milliseconds


def _reject_change(request: contract.Request) -> None:
    """Raises Forbidden."""
    if not isinstance(request, (contract.Read, contract.Watched)):
        raise Forbidden(
            f"{contract.REQUEST}: only reads are allowed here, and nothing was changed; a change"
            " takes POST /, and a caller who is not in API_READERS"
        )


def _by(caller: str) -> str:
    return f"; caller {caller}" if caller else ""


def _log_request(line: str) -> None:
    requests_log.info("%s", line)


def _done(request: contract.Request, container: services.Container) -> replies.Reply:
    service = container.rows
    match request:
        case contract.Read(table, column, values, use_cache, page, is_fresh):
            is_cached = use_cache and page is None
            if is_fresh and is_cached:
                container.captured_changes.show(table)
            rows = service.read(table, column, values, use_cache, page, is_fresh)
            if is_fresh and not is_cached:  # whatever it saw, others must see after it
                container.captured_changes.show(table)
            return replies.of_rows(rows, request)
        case contract.Write(table, rows, use_cache, key):
            return replies.of_write(service.write(table, rows, use_cache, key))
        case contract.Delete(table, keys, key):
            return replies.of_delete(service.delete(table, keys, key))
        case contract.Increment(table, deltas, use_cache, key):
            counters = service.increment(table, deltas, use_cache, key)
            return replies.of_increment(table, counters)
        case contract.Invalidate(table, keys):
            service.invalidate(table, keys)
            return replies.of_invalidate()
        case contract.Watch(table, keys, form, direction):
            return replies.of_watch(container.watch_changes.add(table, keys, form, direction))
        case contract.Unwatch(table, keys, form, any_direction):
            container.watch_changes.remove(table, keys, form, any_direction)
            return replies.of_unwatch()
        case contract.Watched(table):
            return replies.of_watched(container.watches.of(table))
