"""Prints what the functions of a stage log, while they log it."""

import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone

from botocore.exceptions import ClientError

from infra.account import Client
from infra.aws_errors import code_of
from infra.log_retention import log_group
from infra.stage_files import Json
from infra.terminal import say

POLL_SECONDS = 3.0
# How far back it begins.
MINUTES_BEFORE = 10
# Lines may come late, so each look goes back so far.
OVERLAP_MILLISECONDS = 30_000


def follow(logs: Client, functions: Iterable[str]) -> None:
    """Prints lines of the last minutes, then new ones, until Ctrl-C."""
    seen: set[str] = set()
    names = list(functions)
    begin = round(time.time() * 1000) - MINUTES_BEFORE * 60_000
    while True:
        now = round(time.time() * 1000)
        found = [(each, name) for name in names for each in _events(logs, name, begin)]
        for event, name in sorted(found, key=lambda each: int(each[0]["timestamp"])):
            if event["eventId"] not in seen:
                seen.add(event["eventId"])
                at = datetime.fromtimestamp(event["timestamp"] / 1000, timezone.utc)
                say(f"{at:%H:%M:%S}", f"{name}: {event['message'].rstrip()}")
        begin = max(begin, now - OVERLAP_MILLISECONDS)
        time.sleep(POLL_SECONDS)


def _events(logs: Client, function: str, begin: int) -> Iterator[Json]:
    pages = logs.get_paginator("filter_log_events")
    try:
        for page in pages.paginate(logGroupName=log_group(function), startTime=begin):
            yield from page["events"]
    except ClientError as error:
        if code_of(error) != "ResourceNotFoundException":
            raise
