"""Stops a worker: it claims nothing new, finishes its shards within a deadline, and releases the rest.

Celery's warm shutdown waits for the threads pool without a limit, and its soft shutdown does not support that pool
(celery#10490). Therefore this module stops the consumer, and a timer enforces the deadline. A second signal ends the
process at once: its leases expire, and the reconciler requeues its shards.
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
_EXIT_SECONDS = 10.0
"""How long the process may take to exit after its shards were released, before it is ended."""


class Drain:
    """The shutdown of one worker. Safe to begin from any thread, and more than once."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        leases: LeaseKeeper,
        deadline_seconds: float,
        end_process: Callable[[int], None] = os._exit,
        on_begin: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_begin` is called when the drain begins, possibly in a signal handler."""
        self._dispatcher = dispatcher
        self._leases = leases
        self._deadline_seconds = deadline_seconds
        self._end_process = end_process
        self._on_begin = on_begin
        self._lock = threading.Lock()
        self._begun = False
        self.exit_status = 0

    def install(self) -> None:
        """Handle SIGTERM and SIGINT. Call it on the main thread, after Celery has set its own handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def begin(self, exit_status: int = 0, deadline_seconds: float | None = None) -> bool:
        """Stop claiming work; release unfinished shards after the deadline. Returns False when already begun."""
        with self._lock:
            if self._begun:
                return False
            self._begun = True
        self.exit_status = exit_status
        self._dispatcher.close()
        self._on_begin()
        celery.worker.state.should_stop = exit_status  # type: ignore[assignment]
        seconds = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        logger.info("stopping: running shards are released later", extra={"seconds": seconds})
        threading.Thread(target=self._enforce_deadline, args=(seconds,), name="drain", daemon=True).start()
        return True

    def on_engine_death(self) -> None:
        """Release everything at once and exit: the autoscaler starts another worker."""
        self.begin(EXIT_ENGINE_DIED, deadline_seconds=0.0)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self.begin():
            self._end_process(128 + number)

    def _enforce_deadline(self, seconds: float) -> None:
        finished = threading.Event()
        finished.wait(seconds)
        self._dispatcher.stop_waiting()
        if count := self._leases.release_all():
            logger.info("running shards are released", extra={"shards": count})
        finished.wait(_EXIT_SECONDS)
        logger.error("the worker did not exit in time, the process is ended")
        self._end_process(self.exit_status or 1)
