"""Threads that need the same answer at the same time: one of them asks, the others wait for it."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SingleFlight(Generic[Answer]):
    """Safe for threads. Nobody asks while another thread asks for the same, so that no thread waits
    for the questions of all the others, one after the other."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, Future[Answer]] = {}
        self._changing = threading.Lock()

    def ask(self, name: Hashable, question: Callable[[], Answer]) -> Answer:
        """What `question` returns or raises. Where a question of this name is under way, what that
        one returns or raises: it may have begun some time ago. None that has ended counts."""
        with self._changing:
            under_way = self._under_way.get(name)
            if under_way is None:
                self._under_way[name] = Future()
        if under_way is not None:
            return under_way.result()
        try:
            answer = question()
        except BaseException as error:
            self._ended(name).set_exception(error)
            raise
        self._ended(name).set_result(answer)
        return answer

    def _ended(self, name: Hashable) -> "Future[Answer]":
        with self._changing:
            return self._under_way.pop(name)
