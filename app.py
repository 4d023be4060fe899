"""Start here: each route and each event source, a line or two into its handler."""

import os
from typing import Any

from chalice.app import BaseLambdaEvent, Rate, Request, Response, S3Event

from chalicelib import config, services
from chalicelib.config import RANGES_BUCKET, UPLOAD_BUCKET
from chalicelib.handlers import Api, auth, entry_points

app = Api(app_name="herocache")
app.log.setLevel("INFO")
uploads = os.environ.get(UPLOAD_BUCKET, "uploads")
ranges = os.environ.get(RANGES_BUCKET, "ranges")
guard = auth.guard(os.environ)
services.import_drivers()


def request() -> Request:
    assert app.current_request is not None, "Chalice sets it before it calls a route"
    return app.current_request


@app.route("/", methods=["POST"], content_types=["*/*"], **guard)
def rows() -> Response:
    return entry_points.post(request())


@app.route("/read", methods=["POST"], content_types=["*/*"], **guard)
def reads() -> Response:
    return entry_points.post_read(request())


@app.route("/health", methods=["GET", "HEAD"], content_types=["*/*"])
def health() -> Response:
    return entry_points.get_health(request())


@app.route("/health/deep", methods=["GET"], content_types=["*/*"], **guard)
def deep_health() -> Response:
    return entry_points.get_deep_health(request())


# A browser sends this ahead of a page's request, without credentials.
@app.route("/", methods=["OPTIONS"], content_types=["*/*"])
@app.route("/read", methods=["OPTIONS"], content_types=["*/*"])
@app.route("/health", methods=["OPTIONS"], content_types=["*/*"])
@app.route("/health/deep", methods=["OPTIONS"], content_types=["*/*"])
def preflight() -> Response:
    return entry_points.preflight(request())


@app.lambda_function(name="storage")
def storage(event: Any, context: object) -> dict[str, Any]:
    return entry_points.invoke(event)


@app.lambda_function(name="employees")
def employees(event: Any, context: object) -> Any:
    return entry_points.add_employees(event)


@app.on_s3_event(bucket=uploads, name="ingest")
def ingest(event: S3Event) -> list[dict[str, Any]]:
    return entry_points.ingest(event.to_dict())


@app.schedule(Rate(config.sync_minutes(os.environ), unit=Rate.MINUTES), name="sync")
def sync(event: BaseLambdaEvent) -> dict[str, Any]:
    return entry_points.sync(event.to_dict())


# In one bucket S3 takes only functions whose filters do not overlap, and `ingest` has no filter.
@app.on_s3_event(bucket=ranges, name="sync_range")
def sync_range(event: S3Event) -> list[dict[str, Any]]:
    return entry_points.sync_range(event.to_dict())


if auth.COMMAND in os.environ:
    from local.chalice_http import replace_server

    replace_server.install()
