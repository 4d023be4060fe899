"""Exactly once: events twice, late, at the same time, and after a kill -9 at every step."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chalicelib import services
from chalicelib.cache.generations import Generations
from chalicelib.errors import OutcomeUnknown
from chalicelib.handlers import entry_points
from chalicelib.ingest import service as ingest_service
from chalicelib.ingest.events import Outcome, Upload
from chalicelib.ingest.service import Ingest
from chalicelib.rows.write_through import WriteThrough
from chalicelib.tables import HEROES
from local.servers import MariaDB
from tests.conftest import Configure
from tests.support import bucket as s3
from tests.support.bucket import Event, UploadBucket, lines, without
from tests.support.client import InProcess
from tests.support.event_process import MID_FILE, answer_of, deliver
from tests.support.relay import CUT_AFTER, CUT_BEFORE, PASS, Relay, relaying
from tests.support.witness import Witness

KEY = "incoming/heroes/some.csv"
FEW = 40
MANY = ingest_service.MAX_SMALL_ROWS + 1_000


def keyless(count: int) -> str:
    """Loaded twice these would be twice as many rows."""
    return "".join(f"Nova,light,Ada {i},{i},red\n" for i in range(1, count + 1))


@pytest.fixture
def process_environment(s3_port: int, environment: dict[str, str]) -> dict[str, str]:
    return {**environment, **s3.environment(s3_port)}


def assert_loaded_once(witness: Witness, count: int) -> None:
    assert witness.query("SELECT COUNT(*), COUNT(DISTINCT name) FROM heroes") == [(count, count)]


def test_an_event_that_comes_again_is_answered_and_changes_nothing(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    event = bucket.put(KEY, keyless(FEW) + "bad\n")
    [first] = entry_points.ingest(event)
    before = witness.state()
    service.write([{"id": 1, "hero": "Mine", "power": "", "name": "Ada 1", "xp": 1, "color": ""}])

    [again] = entry_points.ingest(event)

    for summary in (first, again):
        assert 0 <= summary.pop("seconds") < 60
    assert again == first
    assert service.read([1]).rows[0]["hero"] == "Mine", "the event undid what came after it"
    assert_loaded_once(witness, FEW)
    assert witness.state() != before


def test_the_same_file_uploaded_again_is_another_upload(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    for _ in range(2):
        entry_points.ingest(bucket.put(KEY, keyless(FEW)))

    assert witness.count() == 2 * FEW


def test_an_older_event_that_comes_late_changes_nothing(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    older = bucket.put(KEY, lines(1, 3, hero="Old"))
    newer = bucket.put(KEY, lines(1, 2, hero="New"))
    entry_points.ingest(newer)

    [late] = entry_points.ingest(older)

    assert (late["status"], late["reason"]) == ("skipped", "a later upload is there already")
    assert witness.query("SELECT hero FROM heroes") == [("New",), ("New",)]
    assert bucket.summary(KEY)["status"] == "loaded"


def test_a_file_that_is_refused_late_does_not_take_the_place_of_a_later_one(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The later one was loaded while it was read, and is delivered twice."""
    older = bucket.put(KEY, "bad\n" * FEW)
    newer = bucket.put(KEY, keyless(FEW))
    refuse = Ingest._reject

    def refuse_late(self: Ingest, upload: Upload, outcome: Outcome) -> Outcome:
        entry_points.ingest(newer)
        return refuse(self, upload, outcome)

    monkeypatch.setattr(Ingest, "_reject", refuse_late)
    [late] = entry_points.ingest(older)

    assert late["status"] == "skipped"
    entry_points.ingest(newer)
    assert_loaded_once(witness, FEW)


@pytest.mark.parametrize(
    ("one", "other", "is_before", "is_same"),
    [
        ("0055AED6DCD90281E5", "0055AED6DCD90281E6", True, False),
        ("0055AED6DCD90281E6", "0055AED6DCD90281E5", False, False),
        ("0A", "0A00", False, True),
        ("0A", "0A01", True, False),
        ("0B", "0A01", False, False),
        ("9", "0A", False, False),
        ("", "0A", False, False),
        ("0A", "", False, False),
    ],
)
def test_sequencers_are_compared_as_s3_says(
    one: str, other: str, is_before: bool, is_same: bool
) -> None:
    first = Upload("b", "k", 1, "v1", "e1", one)
    second = Upload("b", "k", 1, "v2", "e2", other)

    assert (first.came_before(second), first.is_same(second)) == (is_before, is_same)


def test_without_sequencers_the_version_tells_uploads_apart(
    service: InProcess, bucket: UploadBucket, witness: Witness
) -> None:
    events = [without(bucket.put(KEY, keyless(FEW)), "sequencer") for _ in range(2)]

    for event in (events[0], events[0], events[1], events[1]):
        entry_points.ingest(event)

    assert witness.count() == 2 * FEW


@pytest.mark.parametrize(
    ("deliveries", "loads"),
    [("1 2 1 2 1", 2), ("2 1 2 1 2", 1)],
)
def test_without_versions_events_that_come_late_and_again_load_no_content_once_more(
    service: InProcess,
    bucket: UploadBucket,
    s3_port: int,
    witness: Witness,
    deliveries: str,
    loads: int,
) -> None:
    """S3 then has no more than one content, which several uploads may have had."""
    plain = UploadBucket(s3_port, is_versioned=False)
    events = {name: plain.put(KEY, keyless(FEW)) for name in "12"}

    for name in deliveries.split():
        entry_points.ingest(events[name])

    assert witness.count() == loads * FEW


def test_where_versions_are_suspended_an_event_means_its_own_upload(
    service: InProcess, bucket: UploadBucket, s3_port: int, witness: Witness
) -> None:
    """Each upload is the version `null` then, which the next one overwrites."""
    plain = UploadBucket(s3_port)
    plain.client.put_bucket_versioning(
        Bucket=plain.name, VersioningConfiguration={"Status": "Suspended"}
    )
    events = [plain.put(KEY, keyless(count)) for count in (FEW, FEW + 1)]
    for event in events:
        event["Records"][0]["s3"]["object"]["versionId"] = "null"

    summaries = [entry_points.ingest(event) for event in (*events, *events)]

    assert [summary["status"] for [summary] in summaries] == [
        *("skipped", "loaded"),
        *("skipped", "loaded"),
    ]
    assert_loaded_once(witness, FEW + 1)


def test_without_versions_a_content_that_comes_back_is_loaded_once_for_each_upload(
    service: InProcess, bucket: UploadBucket, s3_port: int, witness: Witness
) -> None:
    """The event of the first upload comes again ahead of that of the last, which has the same
    content: S3 cannot tell them apart."""
    plain = UploadBucket(s3_port, is_versioned=False)
    one = plain.put(KEY, keyless(FEW))
    entry_points.ingest(one)
    two = plain.put(KEY, lines(1_000, 1))
    entry_points.ingest(two)
    three = plain.put(KEY, keyless(FEW))

    for event in (one, three, two, one, three):
        entry_points.ingest(event)

    assert witness.count() == 2 * FEW + 1

    four = plain.put(KEY, keyless(FEW))
    for event in (four, one, three, four):
        entry_points.ingest(event)

    assert witness.count() == 3 * FEW + 1


def test_twelve_deliveries_from_four_processes_load_once(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    process_environment: dict[str, str],
) -> None:
    few = bucket.put("incoming/heroes/few.csv", keyless(FEW))
    many = bucket.put("incoming/heroes/many.csv", keyless(MANY).replace("Ada", "Bo"))
    event = s3.together(many, few)
    deliveries = [[event] * 3 for _ in range(4)]

    answers = [answer_of(p) for p in [deliver(process_environment, d) for d in deliveries]]

    told = [summaries for answer in answers for summaries in answer["summaries"]]
    assert len(told) == 12
    assert {(s["status"], s["rows"]) for pair in told for s in pair} == {
        ("loaded", FEW),
        ("loaded", MANY),
    }
    assert_loaded_once(witness, FEW + MANY)
    assert len(service.read([1], BY="xp").rows) == 2


STEPS_OF_FEW = [
    *(
        "refused rows told",
        "upload claimed",
        "outcome recorded",
        "rows written",
        "fences sent",
        "about to commit",
    ),
    *("committed", "entries published", "about to tell", "told"),
]
STEPS_OF_MANY = [
    *(
        "upload claimed",
        MID_FILE,
        "rows loaded",
        "refused rows told",
        "outcome recorded",
        "generation raised",
    ),
    *("about to commit", "committed", "generation known", "about to tell"),
]


STEPS_OF_THE_DATABASE = ["lines staged", "lines settled", "lines merged"]
# On both sides of what the next delivery finds: the claim, the COMMIT, the report. Each step takes
# two seconds for a process of its own, so `make proof` has the others.
QUICK_STEPS = [
    *[(FEW, step) for step in ("fences sent", "committed", "told")],
    *[(MANY, step) for step in ("upload claimed", "about to commit", "committed", "about to tell")],
    (MANY, "lines merged"),
]


@pytest.mark.parametrize(
    ("engine", "count", "step"),
    [
        pytest.param(engine, count, step, marks=[pytest.mark.proof] * (not is_quick))
        for engine, count, steps in (
            ("mysql", FEW, STEPS_OF_FEW),
            ("mysql", MANY, STEPS_OF_MANY),
            ("aurora", MANY, STEPS_OF_THE_DATABASE),
        )
        for step in steps
        for is_quick in [(count, step) in QUICK_STEPS]
    ],
)
def test_a_process_killed_at_any_step_leaves_exactly_one_load_to_the_next(
    service: InProcess,
    bucket: UploadBucket,
    witness: Witness,
    process_environment: dict[str, str],
    engine: str,
    count: int,
    step: str,
) -> None:
    entry_points.ingest(bucket.put("incoming/heroes/before.csv", lines(1, 1, hero="Old")))
    service.read([1])
    event = bucket.put(KEY, "1,New,light,Ada 1,1,red\n" + lines(2, count - 1) + "bad\n")

    process = deliver({**process_environment, "INGEST_ENGINE": engine}, [event], step)
    assert process.wait(timeout=60) == -signal.SIGKILL
    _, error = process.communicate()
    assert error == ""
    hero_between = service.read([1], use_cache=False).rows[0]["hero"]
    [summary] = entry_points.ingest(event)

    assert hero_between == ("New" if witnessed_commit(step) else "Old")
    assert (summary["status"], summary["rows"], summary["refused"]) == ("loaded", count, 1)
    assert_loaded_once(witness, count)
    assert service.read([1]).content == service.read([1], use_cache=False).content
    assert service.read([1]).rows[0]["hero"] == "New"
    assert bucket.summary(KEY) == summary
    assert (bucket.rejected(KEY) or "").count("\n") == 2


def test_a_delivery_that_finds_the_rows_loaded_waits_until_every_reader_sees_them(
    service: InProcess, bucket: UploadBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry_points.ingest(bucket.put("incoming/heroes/before.csv", lines(1, 1, hero="Old")))
    event = bucket.put(KEY, lines(1, MANY, hero="New"))
    waiting = Generations.wait_until_known
    with monkeypatch.context() as patch:
        patch.setattr(Generations, "wait_until_known", lambda *_: die())
        patch.setattr(WriteThrough, "replace_all", reading_first(service, WriteThrough.replace_all))
        with pytest.raises(SystemExit):
            entry_points.ingest(event)
    assert Generations.wait_until_known is waiting

    entry_points.ingest(event)

    assert service.read([1]).rows[0]["hero"] == "New"


def die() -> None:
    raise SystemExit


def reading_first(service: InProcess, replace_all: Any) -> Any:
    """Lets a reader learn the generation, and fill the entry, while the file is being loaded."""

    def replace_all_read(write_through: Any, table: Any, apply: Any) -> Any:
        def apply_and_read(transaction: Any) -> Any:
            result = apply(transaction)
            assert service.read([1]).rows[0]["hero"] == "Old"
            return result

        return replace_all(write_through, table, apply_and_read)

    return replace_all_read


def witnessed_commit(step: str) -> bool:
    return step in ("committed", "entries published", "generation known", "about to tell", "told")


@pytest.fixture
def relayed(
    mariadb: MariaDB, bucket: UploadBucket, witness: Witness, configure: Configure
) -> Iterator[Relay]:
    """The app, its way to the database through a relay."""
    with relaying(mariadb.port) as relay:
        configure(DB_PORT=str(relay.port))
        yield relay


@pytest.mark.parametrize("count", [FEW, MANY])
@pytest.mark.parametrize("cut", [CUT_BEFORE, CUT_AFTER], ids=["before", "after"])
def test_a_lost_answer_to_the_commit_is_an_error_and_the_next_delivery_finds_out(
    relayed: Relay, bucket: UploadBucket, witness: Witness, count: int, cut: int
) -> None:
    event = bucket.put(KEY, keyless(count))
    relayed.judge = lambda piece: cut if b";COMMIT" in piece else PASS
    with pytest.raises(OutcomeUnknown):
        entry_points.ingest(event)
    relayed.judge = lambda piece: PASS

    [summary] = entry_points.ingest(event)

    assert (summary["status"], summary["rows"]) == ("loaded", count)
    assert_loaded_once(witness, count)


Read = Callable[[], bytes]


@pytest.fixture
def read(service: InProcess, configure: Configure, relayed: Relay) -> Read:
    """What a reader sees of hero 1, who was written before; its way has no relay."""
    configure()
    reader = services.container().rows
    reader.write(HEROES, [(1, "Old", "light", "Ada 1", 1, "red")], True)
    configure(DB_PORT=str(relayed.port))
    return lambda: reader.read(HEROES, HEROES.key, [1], True).json


def ingest_and_lose_the_answer(relay: Relay, witness: Witness, event: Event, read: Read) -> None:
    """Redis is emptied while this commits; a reader, who finds no fence, stores the row as it was;
    and the answer to the COMMIT is lost."""

    def lose_all(piece: bytes) -> int:
        if b";COMMIT" not in piece:
            return PASS
        witness.forget_cached()
        assert b"Old" in read()
        return CUT_AFTER

    relay.judge = lose_all
    with pytest.raises(OutcomeUnknown):
        entry_points.ingest(event)
    relay.judge = lambda piece: PASS


@pytest.mark.parametrize("count", [FEW, MANY])
def test_what_a_second_delivery_acknowledges_every_reader_sees(
    relayed: Relay, bucket: UploadBucket, witness: Witness, read: Read, count: int
) -> None:
    event = bucket.put(KEY, lines(1, count, hero="New"))
    ingest_and_lose_the_answer(relayed, witness, event, read)

    [summary] = entry_points.ingest(event)

    assert summary["status"] == "loaded"
    assert b"New" in read()


@pytest.mark.parametrize("has_sequencers", [True, False])
def test_what_a_second_delivery_skips_every_reader_sees(
    relayed: Relay, bucket: UploadBucket, witness: Witness, read: Read, has_sequencers: bool
) -> None:
    """After the first one a later upload of the same object key was loaded, with other rows."""
    untold = () if has_sequencers else ("sequencer", "versionId")
    event = without(bucket.put(KEY, lines(1, 1, hero="New")), *untold)
    ingest_and_lose_the_answer(relayed, witness, event, read)
    entry_points.ingest(without(bucket.put(KEY, lines(2, 1, hero="New")), *untold))
    assert b"Old" in read()

    [summary] = entry_points.ingest(event)

    assert summary["status"] == "skipped"
    assert b"New" in read()


@pytest.mark.parametrize("count", [FEW, MANY])
def test_of_two_files_with_the_same_ids_one_is_there_whole(
    service: InProcess, bucket: UploadBucket, witness: Witness, count: int
) -> None:
    rising = lines(1, count, hero="One")
    falling = "".join(reversed(lines(1, count, hero="Other").splitlines(keepends=True)))
    for attempt in range(2):
        events = [
            bucket.put(f"incoming/heroes/{name}-{attempt}.csv", content)
            for name, content in (("rising", rising), ("falling", falling))
        ]

        with ThreadPoolExecutor(2) as threads:
            told = list(threads.map(entry_points.ingest, events))

        assert [summary["status"] for [summary] in told] == ["loaded"] * 2
        [(hero, rows)] = witness.query("SELECT hero, COUNT(*) FROM heroes GROUP BY hero")
        assert rows == count
        for use_cache in (True, False):
            assert {row["hero"] for row in service.read([1, count], use_cache).rows} == {hero}


def test_a_killed_process_is_a_fault_that_the_steps_really_reach(
    bucket: UploadBucket, process_environment: dict[str, str], service: InProcess
) -> None:
    event: Event = bucket.put(KEY, lines(1, 3))

    answer = answer_of(deliver(process_environment, [event]))

    assert answer["summaries"][0][0]["status"] == "loaded"
