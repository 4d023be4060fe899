"""The worker processes: started, killed, made to hang, replaced by new ones, and waited for."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.context import SpawnContext, SpawnProcess

from tests.history.records import records_of
from tests.history.stop_points import DIED
from tests.history.worker import Plan, work

CONTEXT: SpawnContext = multiprocessing.get_context("spawn")
HUNG_SECONDS = 30


class Crew:
    """`own_settings`: what process N has in its environment besides the plan's."""

    def __init__(
        self, plan: Plan, processes: int, own_settings: Callable[[int], Mapping[str, str]]
    ) -> None:
        self._plan = plan
        self._own_settings = own_settings
        self._processes: list[SpawnProcess] = []
        self._incarnations = [0] * processes
        # Exit codes of processes that ended before their time.
        self.deaths: list[int] = []
        self._processes = [self._start(number) for number in range(processes)]

    def wait_until_all_begun(self) -> None:
        """On a busy machine that takes as long as a short round."""
        for number in range(len(self._processes)):
            while not records_of(self._plan.folder, number, 0).exists():
                assert self._processes[number].exitcode is None, "a worker died before it began"
                time.sleep(0.02)

    def replace_dead(self) -> None:
        for number, process in enumerate(self._processes):
            if process.exitcode not in (None, 0):
                self.deaths.append(process.exitcode)
                self._incarnations[number] += 1
                self._processes[number] = self._start(number)

    def kill_one(self, dice: random.Random) -> None:
        self._signal(dice.randrange(len(self._processes)), signal.SIGKILL)

    def pause_one(self, dice: random.Random) -> Callable[[], None]:
        """Make one hang; what is returned lets it go on."""
        number = dice.randrange(len(self._processes))
        process = self._processes[number]
        self._signal(number, signal.SIGSTOP)

        def resume() -> None:
            if process is self._processes[number]:
                self._signal(number, signal.SIGCONT)

        return resume

    def unexpected_deaths(self) -> list[int]:
        return [code for code in self.deaths if code not in (DIED, -signal.SIGKILL)]

    def join(self) -> int:
        """Wait for all to end; how many had to be ended by force, hanging."""
        hung = 0
        for process in self._processes:
            process.join(HUNG_SECONDS)
            if process.exitcode is None:
                hung += 1
                process.kill()
                process.join()
            elif process.exitcode != 0:
                self.deaths.append(process.exitcode)
        return hung

    def end(self) -> None:
        """Kill all processes."""
        for process in self._processes:
            process.kill()
            process.join()

    def _start(self, number: int) -> SpawnProcess:
        settings = self._own_settings(number)
        arguments = (self._plan, number, self._incarnations[number], settings)
        process = CONTEXT.Process(target=work, args=arguments, daemon=True)
        process.start()
        return process

    def _signal(self, number: int, which: signal.Signals) -> None:
        process = self._processes[number]
        if process.exitcode is None and process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, which)
