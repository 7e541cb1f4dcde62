"""Ctrl-C and SIGTERM: the first asks training to stop at the end of the step, the second stops at once."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

WATCHED = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Listens for the two signals for the time of a `with` block; `signal` is the one that came, or 0."""

    def __init__(self, note: Callable[[str], None] = lambda text: None) -> None:
        self.signal = 0
        self._note = note
        self._before: dict[int, Any] = {}

    @staticmethod
    def name_of(number: int) -> str:
        """`SIGINT` or `SIGTERM`."""
        return signal.Signals(number).name

    def __enter__(self) -> "Stop":
        # Python hears signals in the main thread only; elsewhere the caller's own handlers stay.
        if threading.current_thread() is threading.main_thread():
            for number in WATCHED:
                self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._restore()
        self._note(f"{self.name_of(number)}: finishing this step, then saving; once more stops at once")

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
