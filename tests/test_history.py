"""Random clients against failing servers for a minute: nothing stale, lost or doubled.

What is checked, and how, stands in `tests/history`. The checker is checked too: it must find what
is wrong with the service when an ingredient of the protocol is taken out.
"""

from collections.abc import Iterator

import pytest

from tests.history.nemesis import FAULTS
from tests.history.round import Report, Servers, play, servers
from tests.history.systems import COMMIT_THEN_SET, NO_FENCE, NO_LEASE_CHECK

SECONDS = 50
"""Of requests and faults; starting the processes and waiting for quiet come on top."""


@pytest.fixture(scope="module")
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with servers(tmp_path_factory.mktemp("history")) as own:
        yield own


def test_no_fault_makes_an_answer_stale_or_loses_a_write(
    own_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    report = play(own_servers, tmp_path_factory.mktemp("records") / "all", SECONDS)
    print(report)

    assert not report.verdict.violations
    assert report.verdict.checked["changes acknowledged"] > 500
    assert len(report.injected) > len(FAULTS) // 2


@pytest.mark.parametrize("system", [NO_LEASE_CHECK, NO_FENCE, COMMIT_THEN_SET])
def test_the_checker_finds_what_is_stale_without_an_ingredient(
    own_servers: Servers, tmp_path_factory: pytest.TempPathFactory, system: str
) -> None:
    """Readers and writers are made to fall asleep where that ingredient would have helped. On a
    busy machine few do in five seconds: then for once more."""
    kinds = ["reader asleep before storing", "writer asleep before publishing"]
    report = Report()
    for seed in range(5):
        folder = tmp_path_factory.mktemp("records") / "one"
        report += play(own_servers, folder, 5, system=system, kinds=kinds, seed=seed)
        if report.verdict.violations["stale read (cached)"]:
            break
    print(system, report)

    assert report.verdict.violations["stale read (cached)"] > 0
    others = {kind for kind in report.verdict.violations if "cached" not in kind}
    assert others <= {"cell differs once quiet"}
