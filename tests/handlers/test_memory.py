"""The memory that one request takes, for the worst bodies: the function has 512 MB on dev."""

import base64
import gzip
import json
import tracemalloc

import pytest

from bench.api_gateway_event import rest_event
from chalicelib.handlers import json_body
from tests.support.client import InProcess

SIZE = json_body.MAX_BODY_BYTES
# The function holds 100 MB before its first request: Python, the drivers, the event.
MOST_BYTES = 200_000_000


def filled(begin: str, item: str, end: str) -> str:
    count = (SIZE - len(begin) - len(end)) // len(item)
    return begin + (item * count).rstrip(",") + end


READ = '{"REQUEST": "read", "SQLS": ['
WORST = {
    "minus zero": filled(READ, "-0,", "]}"),
    "minus zero and long integers": filled(READ + "-0,", f"{10**21},", "]}"),
    "long integers": filled(READ, f"{10**21},", "]}"),
    "empty lists": filled(READ, "[],", "]}"),
    "lists of one": filled(READ, "[0],", "]}"),
    "empty objects": filled(READ, "{},", "]}"),
    "objects of one field": filled(READ, '{"a":0},', "]}"),
    "objects of two fields": filled(READ, '{"a":0,"b":1},', "]}"),
    "fractions": filled(READ, "1.5,", "]}"),
    "not a number": filled(READ, "NaN,", "]}"),
    "strings": filled(READ, '"é",', "]}"),
    "integers": filled(READ, "1000,", "]}"),
    "fields of one name": filled('{"REQUEST": "read", "SQLS": [{', '"a":0,', "}]}"),
    "fields": "{" + ",".join(f'"{i}":0' for i in range(500_000)) + "}",
}


@pytest.mark.proof
@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gzip"])
def test_no_body_takes_more_memory_than_the_function_has(
    service: InProcess, name: str, is_packed: bool
) -> None:
    text = WORST[name]
    assert len(text) <= SIZE
    event = rest_event(text)
    if is_packed:
        packed = base64.b64encode(gzip.compress(text.encode(), 1)).decode()
        headers = {**event["headers"], "Content-Encoding": "gzip"}
        event = {**event, "body": packed, "isBase64Encoded": True, "headers": headers}
    service.read([1])
    tracemalloc.start()
    try:
        answer = service.dispatch(event)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status in (400, 413), answer.text[:200]
    assert len(json.dumps(answer.fields)) < 2_000
    assert peak < MOST_BYTES, f"{peak:,}"
