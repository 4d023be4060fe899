"""A piece of work in a thread of its own, with a limit for how long its caller waits."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Call(threading.Thread, Generic[Answer]):
    """Begins at once. A process does not wait for it when it ends."""

    def __init__(self, work: Callable[[], Answer]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._answer: Answer
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Does the work."""
        try:
            self._answer = self._work()
        except BaseException as error:  # noqa: BLE001  # raised in the thread that waits for it
            self._error = error

    def answer(self, seconds: float) -> Answer:
        """What the work returned, or raised. Raises TimeoutError where it is not done in time: it
        goes on."""
        self.join(seconds)
        if self.is_alive():
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._answer
