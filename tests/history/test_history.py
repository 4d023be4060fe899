"""Random clients against failing servers for a minute: nothing stale, lost or doubled.

What is checked, and how, stands in `tests/history`. The checker is checked too: it must find what
is wrong with the service when an ingredient of the protocol is taken out.
"""

from collections.abc import Iterator

import pytest

from chalicelib.config import DbEngine
from tests.history.compare import picture
from tests.history.nemesis import FAULTS, LOSING, OF_RUNS
from tests.history.round import Servers, play, servers
from tests.history.worker import MIX_OF_ALL, MIX_OF_COUNTERS
from tests.support.background_commands import Done

# The time for requests and faults. Starting the processes and waiting for quiet take longer.
SECONDS = 50


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("history")) as own:
        yield own


@pytest.mark.proof
def test_no_fault_makes_an_answer_stale_or_loses_a_write(
    own_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("records") / "all"
    report = play(own_servers, folder, SECONDS, mix=MIX_OF_ALL)
    print(report)

    assert not report.verdict.violations
    assert report.verdict.checked["changes acknowledged"] > 500
    assert report.verdict.checked["increments acknowledged"] > 100
    assert len(report.injected) > len(FAULTS) // 2


@pytest.mark.proof
def test_no_increment_is_lost_or_doubled_while_runs_are_killed(
    own_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Of write-behind counters, with every fault after which Redis still has its data."""
    folder = tmp_path_factory.mktemp("records") / "pending"
    kinds = [kind for kind in (*FAULTS, *OF_RUNS) if kind not in LOSING]
    report = play(own_servers, folder, SECONDS / 2, kinds=kinds, mix=MIX_OF_COUNTERS)
    print(report)

    assert not report.verdict.violations
    assert report.verdict.checked["increments of write-behind counters acknowledged"] > 500
    assert report.verdict.checked["runs done"] > 5


@pytest.mark.proof
def test_no_fault_does_so_over_the_data_api(
    own_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("records") / "data_api"
    engine = DbEngine.DATA_API
    # AWS itself leads the Data API to the writer: a switchover is nothing that it could play here.
    kinds = [kind for kind in FAULTS if "switched over" not in kind]
    report = play(own_servers, folder, SECONDS, kinds=kinds, mix=MIX_OF_ALL, engine=engine)
    print(report)

    assert not report.verdict.violations
    assert report.verdict.checked["changes acknowledged"] > 50
    assert len(report.injected) > len(FAULTS) // 3


@pytest.mark.timeout(1200)  # it leaves the cores to the other tests
def test_the_checker_finds_what_is_stale_without_an_ingredient(ingredients: Done) -> None:
    output = ingredients.stdout.decode()

    print(output)
    assert ingredients.returncode == 0, output + ingredients.stderr.decode()


def test_the_picture_of_a_comparison_has_bars_as_long_as_its_shares() -> None:
    found = {"herocache": (0, 50_473), "commit, then SET": (3_129, 64_220), "other": (115, 18_302)}

    assert picture(found).splitlines()[2:] == [
        "commit, then SET in the cache  3,129 of 64,220  " + "█" * 40,
        "other                            115 of 18,302  █████",
        "herocache                          0 of 50,473",
    ]
    assert "█" not in picture({"herocache": (0, 0)})
