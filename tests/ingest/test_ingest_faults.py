"""The bucket or the database gone mid-file, Redis gone, files that are made to hurt."""

import gzip
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chalicelib import services
from chalicelib.errors import BucketUnavailable, ConfigurationError, DatabaseUnavailable
from chalicelib.handlers import entry_points
from chalicelib.ingest import service as ingest_service
from chalicelib.ingest.csv_rows import CsvRows
from chalicelib.ingest.events import Upload
from chalicelib.tables import HEROES
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support import bucket as s3
from tests.support.bucket import UploadBucket, lines
from tests.support.client import InProcess
from tests.support.event_process import answer_of, deliver
from tests.support.relay import CUT_BEFORE, PASS, Relay, relaying
from tests.support.witness import Witness

KEY = "incoming/heroes/some.csv"
FEW = 40
MANY = 4 * ingest_service.MAX_SMALL_ROWS
MAX_GROWTH_MB = 80


@pytest.fixture
def s3_relay(
    bucket: UploadBucket, s3_port: int, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Relay]:
    """Between the app and its bucket."""
    with relaying(s3_port) as relay:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{relay.port}")
        s3.forget_client()
        yield relay


def assert_nothing_happened(witness: Witness, bucket: UploadBucket) -> None:
    assert witness.count() == 0
    assert bucket.summary(KEY) is None
    assert witness.query("SELECT 1 FROM ingest_log WHERE bucket = %s", [bucket.name]) == []


def test_a_bucket_that_cannot_be_reached_is_named(
    service: InProcess, bucket: UploadBucket, witness: Witness, s3_relay: Relay
) -> None:
    event = bucket.put(KEY, lines(1, FEW))
    s3_relay.close()

    with pytest.raises(BucketUnavailable, match=f"the bucket {bucket.name} cannot be used now"):
        entry_points.ingest(event)

    assert_nothing_happened(witness, bucket)


def test_a_bucket_that_refuses_is_named_with_its_reason(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    event = bucket.put(KEY, lines(1, FEW))
    event["Records"][0]["s3"]["bucket"]["name"] = "nobodys-bucket"

    with pytest.raises(BucketUnavailable, match=r"nobodys-bucket .* NoSuchBucket"):
        entry_points.ingest(event)

    assert_nothing_happened(witness, bucket)


def test_a_bucket_gone_mid_file_leaves_nothing_half_loaded(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    s3_relay: Relay,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = "x" * 255  # too much for the network to hold
    event = bucket.put(KEY, lines(1, MANY, hero=long, power=long, color=long))
    original = CsvRows.batches

    def cut_after_the_first(rows: CsvRows) -> Iterator[Any]:
        for batch in original(rows):
            yield batch
            s3_relay.cut()

    monkeypatch.setattr(ingest_service, "MAX_SMALL_BYTES", 0)
    with monkeypatch.context() as patch:
        patch.setattr(CsvRows, "batches", cut_after_the_first)
        with pytest.raises(BucketUnavailable, match=f"the bucket {bucket.name} cannot be used now"):
            entry_points.ingest(event)
    assert_nothing_happened(witness, bucket)

    [summary] = entry_points.ingest(event)

    assert (summary["status"], summary["rows"], witness.count()) == ("loaded", MANY, MANY)


@pytest.mark.parametrize("count", [FEW, MANY])
def test_a_database_gone_mid_file_leaves_nothing_half_loaded(
    bucket: UploadBucket,
    witness: Witness,
    configure: Configure,
    mariadb: MariaDB,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
) -> None:
    event = bucket.put(KEY, lines(1, count))
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        relay.judge = lambda piece: (
            CUT_BEFORE if b",'Ada 7'," in piece or b"\tAda 7\t" in piece else PASS
        )
        lost = "database cannot be reached|lost while it committed"  # few rows go with the COMMIT
        with pytest.raises(DatabaseUnavailable, match=lost):
            entry_points.ingest(event)
        assert_nothing_happened(witness, bucket)
        relay.judge = lambda piece: PASS

        [summary] = entry_points.ingest(event)

    assert (summary["status"], summary["rows"], witness.count()) == ("loaded", count, count)


def test_a_server_that_takes_no_files_says_what_to_set(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    """The setting may be changed at any time. The other files of the event are loaded."""
    large = bucket.put(KEY, lines(1, MANY))
    small = bucket.put("incoming/heroes/small.csv", lines(MANY + 1, FEW))

    with (
        witness.server_has("local_infile", 0),
        pytest.raises(ConfigurationError, match="local_infile"),
    ):
        entry_points.ingest(s3.together(large, small))
    assert witness.count() == FEW

    entry_points.ingest(large)
    assert witness.count() == MANY + FEW


def test_one_record_that_fails_does_not_keep_the_others_from_being_loaded(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    failing = bucket.put(KEY, lines(1, 2))
    failing["Records"][0]["s3"]["bucket"]["name"] = "nobodys-bucket"
    event = s3.together(failing, bucket.put("incoming/heroes/good.csv", lines(3, 2)))

    for _ in range(2):
        with pytest.raises(BucketUnavailable):
            entry_points.ingest(event)

    assert witness.query("SELECT id FROM heroes") == [(3,), (4,)]


def test_one_record_that_fails_on_a_bug_does_not_either(
    service: InProcess, bucket: UploadBucket, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    event = s3.together(
        bucket.put(KEY, lines(1, 2)), bucket.put("incoming/heroes/good.csv", lines(3, 2))
    )
    load = ingest_service.Ingest.load

    def fail_once(self: ingest_service.Ingest, upload: Upload) -> dict[str, Any]:
        if upload.key == KEY:
            raise RuntimeError("for this test")
        return load(self, upload)

    monkeypatch.setattr(ingest_service.Ingest, "load", fail_once)

    with pytest.raises(RuntimeError, match="for this test"):
        entry_points.ingest(event)

    assert witness.query("SELECT id FROM heroes") == [(3,), (4,)]


@pytest.mark.parametrize("count", [FEW, MANY])
def test_without_redis_a_file_is_loaded_and_no_read_is_stale(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    configure: Configure,
    count: int,
) -> None:
    entry_points.ingest(bucket.put("incoming/heroes/before.csv", lines(1, FEW, hero="Old")))
    reader = services.container().rows
    assert service.read([1]).rows[0]["hero"] == "Old"
    configure(REDIS_URL="redis://127.0.0.1:1")

    [summary] = entry_points.ingest(bucket.put(KEY, lines(1, count, hero="New")))

    assert summary["status"] == "loaded"
    assert b'"New"' in reader.read(HEROES, HEROES.key, [1], True).json


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a zip bomb": (
        lambda: gzip.compress((b"," * 20_000 + b"\n") * 2_000, 9),
        "times as large as the file",
    ),
    "a line of 100 MB": (lambda: b"1," + b"x" * 100_000_000, "a line of more than"),
    "a line of 100 MB, compressed": (
        lambda: gzip.compress(lines(1, 3).encode() + b"x" * 100_000_000),
        "a line of more than",
    ),
    "a row of 100 MB that never ends": (
        lambda: b'1,"' + b'a\n","' * 20_000_000,
        "does a quoted value never end",
    ),
    "3 MB of blank lines": (lambda: b"\n" * 3_000_000, "file is empty"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_made_to_hurt_is_refused_in_constant_memory(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    environment: dict[str, str],
    s3_port: int,
    name: str,
) -> None:
    make, reason = HOSTILE[name]
    event = bucket.put(KEY, make())

    answer = answer_of(deliver({**environment, **s3.environment(s3_port)}, [event]))

    [[summary]] = answer["summaries"]
    assert summary["status"] == "refused"
    assert reason in summary["reason"]
    assert answer["grown_mb"] < MAX_GROWTH_MB
    assert witness.count() == 0


def test_memory_is_flat_however_many_rows_and_refused_rows_a_file_has(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    environment: dict[str, str],
    s3_port: int,
) -> None:
    good = lines(1, 95_000)
    bad = "".join(f"{i},{'Nova' * 20},light,Ada,ten,red\n" for i in range(5_000))
    events = [
        bucket.put(f"incoming/heroes/{i}.csv", gzip.compress(content.encode(), 1))
        for i, content in enumerate(itertools.repeat(good + bad, 2))
    ]

    answer = answer_of(deliver({**environment, **s3.environment(s3_port)}, events))

    assert [s["refused"] for [s] in answer["summaries"]] == [5_000] * 2
    assert answer["grown_mb"] < MAX_GROWTH_MB
    assert witness.count() == 95_000
