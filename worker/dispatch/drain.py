"""How a worker goes: takes nothing new at once, finishes what it has within a deadline, gives the rest back.

Celery's own warm shutdown waits without a bound on the threads pool, and its soft one does not work there. Here the
consumer is told to stop, and a timer sees to the rest. A second signal ends the process at once: its shards come back
by their leases.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import celery.worker.state

from worker.dispatch.dispatcher import Dispatcher
from worker.dispatch.leases import LeaseKeeper

logger = logging.getLogger(__name__)

EXIT_ENGINE_DIED = 3
_LAST_WORD_SECONDS = 10.0
"""After everything was given back: then the process ends whatever still hangs in it."""


class Drain:
    """One worker's way out. Safe to begin from any thread, and twice."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        leases: LeaseKeeper,
        deadline_seconds: float,
        end_process: Callable[[int], None] = os._exit,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """`tell` is called when it begins, perhaps in a signal's handler."""
        self._dispatcher = dispatcher
        self._leases = leases
        self._deadline_seconds = deadline_seconds
        self._end_process = end_process
        self._tell = tell
        self._lock = threading.Lock()
        self._begun = False
        self.exit_status = 0

    def install(self) -> None:
        """Take SIGTERM and SIGINT over; from the main thread, after Celery has set its own handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def begin(self, exit_status: int = 0, deadline_seconds: float | None = None) -> bool:
        """Stop taking work; after the deadline give back what is not finished. False when it had begun already."""
        with self._lock:
            if self._begun:
                return False
            self._begun = True
        self.exit_status = exit_status
        self._dispatcher.close()
        self._tell()
        celery.worker.state.should_stop = exit_status  # type: ignore[assignment]
        seconds = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        logger.info("stopping: what runs may take %g s more, then it is given back", seconds)
        threading.Thread(target=self._see_to_the_end, args=(seconds,), name="drain", daemon=True).start()
        return True

    def on_engine_death(self) -> None:
        """A worker without an engine is no use: give everything back now, and let whoever watches start another."""
        self.begin(EXIT_ENGINE_DIED, deadline_seconds=0.0)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self.begin():
            self._end_process(128 + number)

    def _see_to_the_end(self, seconds: float) -> None:
        finished = threading.Event()
        finished.wait(seconds)
        self._dispatcher.leave()
        if count := self._leases.release_all():
            logger.info("%d shards are given back", count)
        finished.wait(_LAST_WORD_SECONDS)
        logger.error("something hangs, the process is ended")
        self._end_process(self.exit_status or 1)
