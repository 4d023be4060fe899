"""The benchmark of the sync works, on few rows; its ratios mean nothing then."""

import re
import subprocess
import sys

import pytest

from tests.support.client import ROOT

pytestmark = pytest.mark.proof


def test_the_benchmark_of_the_sync_measures_both_ways_idle_runs_and_memory() -> None:
    few = ["--rows", "22000", "--rounds", "1", "--memory-rows", "1000"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.sync", *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for direction in ("database to public keys", "public keys to database"):
        assert re.search(rf"^{direction} +[0-9.]+ +[0-9.]+ +[0-9,]+ +[0-9.]+", done.stdout, re.M)
    assert re.search(
        r"^nothing to do: statements for the database +0 +<= 0 +PASS$", done.stdout, re.M
    )
    assert re.search(r"^memory of a run, 1,000 rows: MB more +[0-9]+ +<= 64", done.stdout, re.M)
