"""Faults on command, and what was asked of the service. For tests."""

import threading
from collections import Counter
from dataclasses import asdict, dataclass, fields
from typing import Any

from local.data_api.errors import ServiceError
from local.data_api.limits import Limits
from local.data_api.transactions import Clock, Transactions

# The request is answered with an error, and nothing is done.
ERROR = "error"
# The work is done, and an error is answered.
ERROR_AFTER = "error after"
# The connection is closed, and nothing is done.
CUT = "cut"
# The work is done, and the connection is closed without an answer.
CUT_AFTER = "cut after"
# Nothing is answered and nothing is done, until `release` or the end of the server.
HANG = "hang"
# The work is done only after so many seconds.
DELAY = "delay"
# The transaction of the request is rolled back first.
LOSE_TRANSACTION = "lose transaction"
KINDS = {ERROR, ERROR_AFTER, CUT, CUT_AFTER, HANG, DELAY, LOSE_TRANSACTION}


@dataclass
class Fault:
    """Happens to the next `times` requests of an operation (of any one where it is ''), after the
    first `skip` of them."""

    kind: str
    operation: str = ""
    times: int = 1
    skip: int = 0
    code: str = ""
    message: str = ""
    status: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a fault is one of {sorted(KINDS)}, not {self.kind!r}")

    def error(self) -> ServiceError:
        """The error to answer."""
        return ServiceError(self.code, self.message, status=self.status)


class Faults:
    """What happens next, and how often each operation was asked for. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._requests: Counter[str] = Counter()
        self._released = threading.Event()
        self.delay_seconds = 0.0

    def add(self, fault: Fault) -> None:
        """Those that were added first come first."""
        with self._lock:
            self._faults.append(fault)

    def next(self, operation: str) -> Fault | None:
        """Counts a request. The fault that happens to it, if any."""
        with self._lock:
            self._requests[operation] += 1
            for fault in self._faults:
                if fault.operation not in ("", operation) or not fault.times:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
            return None

    def hang(self) -> None:
        """Waits until `release`."""
        self._released.wait()

    def release(self) -> None:
        """Ends every wait of a request that hangs, and forgets faults, counts and delay."""
        with self._lock:
            self._released.set()
            self._released = threading.Event()
            self._faults.clear()
            self._requests.clear()
            self.delay_seconds = 0.0

    def requests(self) -> dict[str, int]:
        """How many requests of each operation there were."""
        with self._lock:
            return dict(self._requests)

    def left(self) -> int:
        """How many faults are still to happen."""
        with self._lock:
            return sum(fault.times for fault in self._faults)


class Control:
    """The commands of a test: JSON in, JSON out."""

    def __init__(
        self, faults: Faults, limits: Limits, clock: Clock, transactions: Transactions
    ) -> None:
        self._faults = faults
        self._limits = limits
        self._clock = clock
        self._transactions = transactions

    def obey(self, command: dict[str, Any]) -> dict[str, Any]:
        """Does what the members of the command say, in this order. Returns the state after it.
        Raises KeyError, TypeError or ValueError for another one."""
        unknown = set(command) - {"reset", "limits", "delay_seconds", "advance_seconds", "fault"}
        if unknown:
            raise KeyError(f"unknown: {sorted(unknown)}")
        if command.get("reset"):
            self._faults.release()
            self._set_limits(asdict(Limits()))
            self._transactions.abort_all()
        self._set_limits(command.get("limits", {}))
        self._faults.delay_seconds = command.get("delay_seconds", self._faults.delay_seconds)
        self._clock.advance(command.get("advance_seconds", 0.0))
        if "fault" in command:
            self._faults.add(Fault(**command["fault"]))
        self._transactions.expire()
        return {
            "requests": self._faults.requests(),
            "faults": self._faults.left(),
            "transactions": len(self._transactions),
        }

    def _set_limits(self, values: dict[str, Any]) -> None:
        known = {each.name for each in fields(Limits)}
        for name, value in values.items():
            if name not in known:
                raise KeyError(f"unknown limit: {name}")
            setattr(self._limits, name, value)
