"""Receives wake-up messages from the pool's queues on its own thread, while the dispatcher has free slots.

Blocks in Redis instead of polling, because polling would take time from an engine that uses all cores. Receives one
message at a time and then pauses briefly, so that one claim covers the shards of further messages.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from shared.contracts import WorkClass
from shared.errors import StoreUnavailable
from shared.ledger.verdicts import FreeSlots
from shared.ledger.worker_ledger import WorkerLedger
from shared.queue.messages import WakeUp

logger = logging.getLogger(__name__)

LISTEN_SECONDS = 0.1
"""The length of one wait in Redis; also how long a pause takes to become effective."""
GATHER_SECONDS = 0.002
"""The pause after a message: far below an engine's step, long enough for more messages to arrive."""
_OUTAGE_PAUSE_SECONDS = 0.5


class QueueListener:
    """The listener of one dispatcher. `on_wake_up` is called on the listener's thread after each message.

    A message may still arrive after a pause, or after the batch queue was excluded. Therefore `take` checks the free
    slots.
    """

    def __init__(self, ledger: WorkerLedger, on_wake_up: Callable[[], None]) -> None:
        self._ledger = ledger
        self._on_wake_up = on_wake_up
        self._changed = threading.Condition()
        self._active = False
        self._batch = False
        self._listening = False
        self._stopped = False
        self._received: deque[WakeUp] = deque()
        self._thread: threading.Thread | None = None

    def start(self, *, batch: bool) -> None:
        """Receive messages from now on; `batch` includes the batch queue."""
        with self._changed:
            self._batch = batch
            if self._active:
                return
            self._active = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def pause(self, *, wait: bool = False) -> None:
        """Stop receiving; with `wait`, return only after the current read has ended. Received messages are kept."""
        with self._changed:
            self._active = False
            if wait:
                self._changed.wait_for(lambda: not self._listening)

    def stop(self) -> list[WakeUp]:
        """End the thread and wait for it. Returns the messages that were not taken. `start` begins a new thread."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._active, self._stopped = False, True
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        with self._changed:
            self._stopped = False
            remaining, self._received = list(self._received), deque()
        return remaining

    def has_wake_ups(self, free: FreeSlots) -> bool:
        """Whether `take` would return any message."""
        with self._changed:
            return any(_fits(wake_up, free) for wake_up in self._received)

    def take(self, free: FreeSlots) -> list[WakeUp]:
        """The received messages that fit into the free slots, in order."""
        with self._changed:
            taken: list[WakeUp] = []
            for wake_up in tuple(self._received):
                if _fits(wake_up, free.without(taken)):
                    self._received.remove(wake_up)
                    taken.append(wake_up)
            return taken

    def reject(self, free: FreeSlots) -> list[WakeUp]:
        """The received messages that do not fit into the free slots."""
        with self._changed:
            rejected = [wake_up for wake_up in self._received if not _fits(wake_up, free)]
            for wake_up in rejected:
                self._received.remove(wake_up)
            return rejected

    def _run(self) -> None:
        while True:
            with self._changed:
                self._listening = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._active or self._stopped)
                if self._stopped:
                    return
                self._listening = True
                batch = self._batch
            try:
                wake_up = self._ledger.wait_for_wake_up(LISTEN_SECONDS, batch=batch)
            except StoreUnavailable as error:
                logger.debug("cannot read the queues", extra={"error": error})
                time.sleep(_OUTAGE_PAUSE_SECONDS)
                continue
            if wake_up is not None:
                with self._changed:
                    self._received.append(wake_up)
                self._on_wake_up()
                time.sleep(GATHER_SECONDS)


def _fits(wake_up: WakeUp, free: FreeSlots) -> bool:
    return free.shards > 0 and (wake_up.work_class is not WorkClass.BATCH or free.batch > 0)
