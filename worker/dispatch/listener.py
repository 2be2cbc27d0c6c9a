"""Listens at the pool's queues while it is asked to, on a thread of its own.

Blocks in Redis rather than looking again and again: on a machine whose cores are all computing, every look would be
taken from the engine. Hears one wake_up at a time and then rests for a moment, so that whoever asks can take the
others that wait all at once.
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
"""One wait in Redis; also how long it takes until the ear is deaf."""
GATHER_SECONDS = 0.002
"""The rest after a wake_up: well under an engine's step, long enough for some more to come."""
_OUTAGE_SECONDS = 0.5


class QueueListener:
    """One dispatcher's. `heard` is called, on the ear's thread, after each wake_up.

    What is in the air when it is hushed, or told to leave batch work out, is heard all the same; so `take` asks again
    what there is room for.
    """

    def __init__(self, ledger: WorkerLedger, heard: Callable[[], None]) -> None:
        self._ledger = ledger
        self._tell = heard
        self._changed = threading.Condition()
        self._wanted = False
        self._batch = False
        self._listening = False
        self._stopped = False
        self._heard: deque[WakeUp] = deque()
        self._thread: threading.Thread | None = None

    def listen(self, *, batch: bool) -> None:
        """Listen from now on; to batch work only if it is wanted."""
        with self._changed:
            self._batch = batch
            if self._wanted:
                return
            self._wanted = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ear", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def hush(self, *, wait: bool = False) -> None:
        """Stop listening; what is heard until it has stopped is kept. `wait` until then."""
        with self._changed:
            self._wanted = False
            if wait:
                self._changed.wait_for(lambda: not self._listening)

    def stop(self) -> list[WakeUp]:
        """End the thread, and wait for its end; answers what was heard and not taken. `listen` begins another one."""
        with self._changed:
            thread, self._thread = self._thread, None
            self._wanted, self._stopped = False, True
            self._changed.notify_all()
        if thread is not None:
            thread.join()
        with self._changed:
            self._stopped = False
            left, self._heard = list(self._heard), deque()
        return left

    def has_heard(self, room: FreeSlots) -> bool:
        """Whether `take` would answer anything."""
        with self._changed:
            return any(_fits(wake_up, room) for wake_up in self._heard)

    def take(self, room: FreeSlots) -> list[WakeUp]:
        """The wake_ups heard that there is room for, in their order."""
        with self._changed:
            taken: list[WakeUp] = []
            for wake_up in tuple(self._heard):
                if _fits(wake_up, room.without(taken)):
                    self._heard.remove(wake_up)
                    taken.append(wake_up)
            return taken

    def refuse(self, room: FreeSlots) -> list[WakeUp]:
        """The wake_ups heard that there is no room for."""
        with self._changed:
            refused = [wake_up for wake_up in self._heard if not _fits(wake_up, room)]
            for wake_up in refused:
                self._heard.remove(wake_up)
            return refused

    def _run(self) -> None:
        while True:
            with self._changed:
                self._listening = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wanted or self._stopped)
                if self._stopped:
                    return
                self._listening = True
                batch = self._batch
            try:
                wake_up = self._ledger.wait_for_wake_up(LISTEN_SECONDS, batch=batch)
            except StoreUnavailable as error:
                logger.debug("the queues cannot be listened to: %s", error)
                time.sleep(_OUTAGE_SECONDS)
                continue
            if wake_up is not None:
                with self._changed:
                    self._heard.append(wake_up)
                self._tell()
                time.sleep(GATHER_SECONDS)


def _fits(wake_up: WakeUp, room: FreeSlots) -> bool:
    return room.shards > 0 and (wake_up.work_class is not WorkClass.BATCH or room.batch > 0)
