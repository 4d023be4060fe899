"""`make demo`: what it shows, what it finds, and that it leaves nothing behind."""

import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from local.demo import demo
from local.demo.clients import Glance
from local.machine import ROOT, has_ended
from tests.support.project_copy import clean_environment

CALM = Glance(reads=1000, writes=20, stale=0, failed=0, hits=0.5, median_ms=1.25)
STALE = Glance(reads=900, writes=20, stale=31, failed=0, hits=None, median_ms=0.5)

pytestmark = pytest.mark.proof


def test_herocache_gives_no_stale_read_where_commit_then_set_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PHASES", {demo.WELL: 1, demo.KILLED: 2, demo.BACK: 2})
    code = demo.demo()
    said = capsys.readouterr().out
    assert code == 0, said
    lines = re.findall(r"^ *(\d+) s  (.*?)  +herocache: (.*)$", said, re.MULTILINE)
    assert [int(second) for second, *_ in lines] == [1, 2, 3, 4, 5]
    assert [phase for _, phase, _ in lines] == [demo.WELL, *[demo.KILLED] * 2, *[demo.BACK] * 2]
    assert "herocache        0 stale reads, 0 failed requests" in said
    [stale] = re.findall(r"commit-then-SET  ([\d,]+) stale reads of [\d,]+", said)
    assert int(stale.replace(",", "")) > 0


@pytest.mark.parametrize(
    ("ours", "code"),
    [
        (CALM, 0),
        (STALE, 1),
        (Glance(1000, 20, 0, 1, 0.5, 1.0), 1),
        (Glance(0, 20, 0, 0, None, 0.0), 1),
    ],
)
def test_the_exit_code_judges_herocache_alone(
    capsys: pytest.CaptureFixture[str], ours: Glance, code: int
) -> None:
    assert demo.judged({"herocache": ours, "commit-then-SET": STALE}, "refused") == code
    assert ("first: refused" in capsys.readouterr().out) == bool(ours.failed)


def test_on_a_terminal_one_table_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", terminal)
    screen = demo.Screen()
    for second, phase in ((1, demo.WELL), (2, demo.KILLED)):
        screen.show(second, phase, {"herocache": CALM, "commit-then-SET": STALE})
    first, second_table = terminal.getvalue().split("\x1b[4A")
    for table, phase in ((first, demo.WELL), (second_table, demo.KILLED)):
        title, head, ours, other = table.replace("\x1b[K", "").splitlines()
        assert title.endswith(phase)
        assert head.split() == ["reads", "hits", "median", "ms", "failed", "stale"]
        assert ours.split() == ["herocache", "1,000", "50%", "1.2", "0", "0"]
        assert other.split() == ["commit-then-SET", "900", "-", "0.5", "0", "31"]


def test_ctrl_c_stops_everything(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "local", "demo"],
        cwd=ROOT,
        env=clean_environment(TMPDIR=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    assert process.stdout is not None
    said = next((line for line in process.stdout if demo.WELL in line), "")
    pids = [int(path.read_text()) for path in tmp_path.glob("herocache-demo-*/*/pid")]
    os.killpg(process.pid, signal.SIGINT)
    rest, _ = process.communicate()
    watchdog.cancel()
    assert demo.WELL in said, rest
    assert process.returncode == 130, rest
    assert "herocache: interrupted" in rest
    assert len(pids) == 4
    assert all(has_ended(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []
